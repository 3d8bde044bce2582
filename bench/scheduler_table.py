"""The table of one case of the scheduler's benchmark: figures, what is wanted, and own against stock."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from bench.service import Usage
from bench.slots_polled import Polled, Spread

OWN, STOCK = "own", "stock"
_MISSED, _DOUBLED, _IN_SECOND = "missed", "doubled", "in Kafka within 1 s, %"
GOALS = {
    _MISSED: 0.0,
    _DOUBLED: 0.0,
    _IN_SECOND: 99.99,
    "late, stored: p99 ms": 250.0,
    "late, in Kafka: p99 ms": 250.0,
    "create to first poll: p99 ms": 1_000.0,
    "beat: CPU, % of a core": 35.0,
    "beat: peak MB": 150.0,
}
GOALS_OF_MANY = {_MISSED: 0.0}


@dataclass(frozen=True)
class Figures:
    """What one scheduler came to in one case of so many seconds."""

    seconds: float
    polled: Polled
    usage: dict[str, Usage]


_Value: TypeAlias = Callable[[Figures], float | None]


def table(found: Mapping[str, Figures], *, goals: Mapping[str, float]) -> str:
    """Return a line for each figure; the ratio is own over stock."""
    head = f"{'':34}" + "".join(f"{name:>12}" for name in found)
    lines = [f"{head}{'own/stock':>12}{'wanted':>10}" if STOCK in found else f"{head}{'wanted':>10}"]
    for label, value in _rows(found[OWN]):
        values = {name: value(figures) for name, figures in found.items()}
        cells = [f"{label:34}", *(_cell(number) for number in values.values())]
        if STOCK in found:
            cells.append(_ratio(values[OWN], values[STOCK]))
        lines.append("".join([*cells, _wanted(goals.get(label), label, values[OWN])]).rstrip())
    return "\n".join(lines)


def _rows(figures: Figures) -> Iterator[tuple[str, _Value]]:
    yield "due", lambda one: one.polled.due
    yield "due, a second", lambda one: one.polled.due / one.seconds
    yield "sent", lambda one: one.polled.sent
    yield _MISSED, lambda one: one.polled.missed
    yield _DOUBLED, lambda one: one.polled.doubled
    yield _IN_SECOND, lambda one: 100 * one.polled.in_second
    yield from _spread("late, at the worker", lambda one: one.polled.at_worker)
    yield from _spread("late, stored", lambda one: one.polled.stored)
    yield from _spread("late, in Kafka", lambda one: one.polled.confirmed)
    if figures.polled.first_poll:
        yield from _spread("create to first poll", lambda one: one.polled.first_poll)
    for name, usage in figures.usage.items():
        yield f"{name}: CPU, % of a core", partial(_cpu, name=name)
        if usage.memory:
            yield f"{name}: MB", partial(_memory, name=name, field="last_mb")
            yield f"{name}: peak MB", partial(_memory, name=name, field="peak_mb")


def _spread(title: str, spread: Callable[[Figures], Spread | None]) -> Iterator[tuple[str, _Value]]:
    for name, field in {"p50": "p50_ms", "p99": "p99_ms", "max": "most_ms"}.items():
        yield f"{title}: {name} ms", partial(_wait, spread=spread, field=field)


def _wait(figures: Figures, *, spread: Callable[[Figures], Spread | None], field: str) -> float | None:
    found: float | None = getattr(spread(figures), field, None)
    return found


def _cpu(figures: Figures, *, name: str) -> float:
    return 100 * figures.usage[name].cpu


def _memory(figures: Figures, *, name: str, field: str) -> float:
    found: float = getattr(figures.usage[name].memory, field)
    return found


def _cell(number: float | None) -> str:
    if number is None:
        return f"{'-':>12}"
    return f"{number:>12,}" if isinstance(number, int) else f"{number:>12,.2f}"


def _ratio(own: float | None, stock: float | None) -> str:
    return f"{own / stock:>12.2f}" if own is not None and stock else f"{'-':>12}"


def _wanted(goal: float | None, label: str, own: float | None) -> str:
    if goal is None:
        return ""
    at_least = label == _IN_SECOND
    sign = ">=" if at_least else "<" if goal else ""
    met = own is not None and (own >= goal if at_least else own < goal or own == goal == 0)
    return f"{f'{sign} {goal:g}':>10}{'' if met else '  not met'}"
