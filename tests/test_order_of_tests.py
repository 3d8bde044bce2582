"""Which tests a worker begins with, and that none is left out."""

from typing import Any

import pytest

from tests.order_of_tests import ordered


def named(letter: str, count: int) -> list[Any]:
    return [f"{letter}{number}" for number in range(count)]


COUNTS = [(6, 20, 4), (0, 9, 4), (9, 0, 4), (7, 30, 3), (1, 1, 2)]


@pytest.mark.parametrize(("slow", "fast", "workers"), COUNTS)
def test_every_test_runs_once(slow: int, fast: int, workers: int) -> None:
    found = ordered(named("s", slow), named("f", fast), stretches=workers)
    assert sorted(map(str, found)) == sorted(named("s", slow) + named("f", fast))


def test_half_of_the_workers_begin_with_slow_tests() -> None:
    found = ordered(named("s", 4), named("f", 16), stretches=4)
    begins: list[Any] = [found[number] for number in range(0, 20, 5)]
    assert begins == ["s0", "s1", "f6", "f11"]
