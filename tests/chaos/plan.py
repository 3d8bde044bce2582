"""From a seed to what is injected when: the same seed always gives the same plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from tests.chaos.faults import FAULTS, Fault

# Seconds between two injections.
PAUSE_S = (0.5, 1.8)
# A beat that was struck is back before the other is.
BEAT_PAUSE_S = (8.0, 10.0)
BEAT_FAULTS = ("process killed", "process suspended")
BEAT_HOLD_S = {"process killed": (0.0, 1.0), "process suspended": (3.0, 5.0)}


@dataclass(frozen=True, slots=True)
class Step:
    """A fault that strikes its target `at_s` seconds after the beginning and holds for `hold_s`."""

    at_s: float
    fault: str
    target: str
    hold_s: float


def make_plan(seed: int, seconds: float, *, members: Mapping[str, str]) -> list[Step]:
    """Give the steps of a run: each fault once, as far as the seconds reach, then any by its weight."""
    rng = Random(f"plan {seed}")
    possible = [fault for fault in FAULTS if fault.strikes(members)]
    first = rng.sample(possible, len(possible))
    steps: list[Step] = []
    at_s = rng.uniform(*PAUSE_S)
    while at_s < seconds:
        fault = first.pop() if first else _by_weight(possible, rng)
        target = rng.choice(fault.strikes(members))
        steps.append(Step(round(at_s, 2), fault.name, target, round(rng.uniform(*fault.hold_s), 2)))
        at_s += rng.uniform(*PAUSE_S)
    return steps


def make_beat_plan(seed: int, seconds: float, *, beats: Sequence[str]) -> list[Step]:
    """Give the steps of a run that strikes one beat after the other: all killed, all suspended, and again."""
    rng = Random(f"beats {seed}")
    turns = cycle([(name, beat) for name in BEAT_FAULTS for beat in beats])
    steps: list[Step] = []
    at_s = rng.uniform(*PAUSE_S)
    while at_s < seconds:
        name, beat = next(turns)
        steps.append(Step(round(at_s, 2), name, beat, round(rng.uniform(*BEAT_HOLD_S[name]), 2)))
        at_s += rng.uniform(*BEAT_PAUSE_S)
    return steps


def _by_weight(faults: list[Fault], rng: Random) -> Fault:
    return rng.choices(faults, weights=[fault.weight for fault in faults])[0]
