"""When a program that ended is started again."""

from dev.restarts import Restarts


def test_delays_double() -> None:
    restarts = Restarts()
    assert [restarts.delay_after_end(now) for now in (0, 1, 3, 6)] == [0.5, 1, 2, 4]


def test_five_ends_within_a_minute_are_final() -> None:
    restarts = Restarts()
    assert [restarts.delay_after_end(now) is None for now in (0, 10, 20, 40, 59)] == [False] * 4 + [True]


def test_rare_ends_are_forgotten() -> None:
    restarts = Restarts()
    assert {restarts.delay_after_end(61.0 * number) for number in range(50)} == {0.5}
