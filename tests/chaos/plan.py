"""From a seed to what is injected when: the same seed always gives the same plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.chaos.faults import FAULTS, Fault

# Seconds between two injections.
PAUSE_S = (0.5, 1.8)


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


def _by_weight(faults: list[Fault], rng: Random) -> Fault:
    return rng.choices(faults, weights=[fault.weight for fault in faults])[0]
