"""The rate limit: no window holds more than it allows, and none is refused without need."""

from hypothesis import given
from hypothesis import strategies as st

from providers.rate_limits.limits import Limit, parse_limits
from providers.simulator.log import busiest_window
from providers.simulator.rate import RateCounter, Standing

START = 1_795_000_000.0


def count(limits: str, *times: float) -> list[Standing]:
    counter = RateCounter(parse_limits(limits))
    standings = [counter.count(START + time) for time in times]
    return [standing for standing in standings if standing]


def test_without_a_limit_nothing_is_counted() -> None:
    assert RateCounter(()).count(START) is None


def test_window_has_room_again_once_its_oldest_request_has_left() -> None:
    refused = [standing.is_refused for standing in count("2/10s", 0, 4, 9, 10, 10.1, 14, 14.1)]
    assert refused == [False, False, True, True, False, True, False]


def test_remaining_and_reset_are_told_of_the_longest_window() -> None:
    standings = count("3/1s,5/1m", 0, 0.5, 30)
    assert [standing.remaining for standing in standings] == [4, 3, 2]
    assert {standing.limit for standing in standings} == {Limit(5, 60)}
    assert [standing.resets_at - START for standing in standings] == [60, 61, 90]


def test_refusal_tells_of_the_limit_that_refuses() -> None:
    burst, minute = count("1/1s,2/1m", 0, 0.5, 2, 2.5)[1::2]
    assert (burst.is_refused, burst.limit) == (True, Limit(1, 1))
    assert (minute.is_refused, minute.limit, minute.remaining) == (True, Limit(2, 60), 0)
    assert minute.resets_at - START == 62


def test_clock_set_back_lets_nothing_more_through() -> None:
    assert [standing.is_refused for standing in count("2/10s", 100, 50, 105, 111)] == [
        False,
        False,
        True,
        False,
    ]


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=80).map(sorted),
    st.sampled_from(["1/1s", "3/7s", "2/1s,9/30s", "5/10s,6/1m"]),
)
def test_no_window_holds_more_and_none_is_refused_without_need(times: list[float], text: str) -> None:
    limits = parse_limits(text)
    counter = RateCounter(limits)
    accepted: list[float] = []
    for time in times:
        standing = counter.count(START + time)
        assert standing
        if not standing.is_refused:
            accepted.append(START + time)
        else:
            after = [*accepted, START + time]
            assert any(busiest_window(after, window_s=each.window_s) > each.requests for each in limits)
    for limit in limits:
        assert busiest_window(accepted, window_s=limit.window_s) <= limit.requests


def test_memory_is_bounded_by_the_limit() -> None:
    counter = RateCounter(parse_limits("10/1s"))
    for second in range(1000):
        counter.count(START + second / 5)
    assert len(counter._accepted) <= 20
