"""From a seed to what is injected when: the same seed always gives the same plan."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import exp, log
from random import Random

from tests.chaos.faults import CLOCK_FAULTS, FAULTS, Fault, Step

# Seconds between two injections.
PAUSE_S = (0.5, 1.8)
# A beat that was struck is back before the other is.
BEAT_PAUSE_S = (8.0, 10.0)
BEAT_FAULTS = ("process killed", "process suspended")
BEAT_HOLD_S = {"process killed": (0.0, 1.0), "process suspended": (3.0, 5.0)}


def make_plan(
    seed: int, seconds: float, *, members: Mapping[str, str], with_clocks: bool = True
) -> list[Step]:
    """Return the steps of a run: each fault once, as far as the seconds reach, then any by its weight.

    `with_clocks`: clocks can be set.
    """
    rng = Random(f"plan {seed}")
    faults = [*FAULTS, *CLOCK_FAULTS] if with_clocks else FAULTS
    possible = [fault for fault in faults if fault.strikes(members)]
    first = rng.sample(possible, len(possible))
    steps: list[Step] = []
    at_s = rng.uniform(*PAUSE_S)
    while at_s < seconds:
        fault = first.pop() if first else _by_weight(possible, rng)
        target = rng.choice(fault.strikes(members))
        hold_s = round(rng.uniform(*fault.hold_s), 2)
        steps.append(Step(round(at_s, 2), fault.name, target, hold_s, _by_s(fault, rng)))
        at_s += rng.uniform(*PAUSE_S)
    return steps


def make_beat_plan(seed: int, seconds: float, *, beats: Sequence[str]) -> list[Step]:
    """Return the steps of a run that strikes one beat after the other: all killed, all suspended, again."""
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


def _by_s(fault: Fault, rng: Random) -> float:
    """Return how far a clock is set: as often by seconds as by minutes or hours, where it may be by any."""
    if fault.clock_s is None:
        return 0.0
    least, most = map(log, fault.clock_s)
    direction = rng.choice([-1, 1]) if fault.sets_back else 1
    return direction * round(exp(rng.uniform(least, most)), 2)
