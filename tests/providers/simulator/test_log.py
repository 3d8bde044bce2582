"""The log of requests: bounded, and counted in full."""

import pytest

from providers.simulator.log import KEPT, Received, RequestLog, busiest_window, summary


def received(time: float, provider: str = "finnhub", outcome: str = "quote") -> Received:
    return Received(time=time, provider=provider, symbol="IBM", status=200, outcome=outcome)


def test_only_the_newest_are_kept_and_all_are_counted() -> None:
    log = RequestLog()
    for number in range(KEPT + 10):
        log.add(received(number))
    assert [each.time for each in log.newest()] == list(range(10, KEPT + 10))
    assert log.counts() == {"finnhub": {"quote": KEPT + 10}}
    log.clear()
    assert (log.newest(), log.counts()) == ([], {})


def test_long_symbol_is_cut() -> None:
    log = RequestLog()
    log.add(Received(time=0, provider="finnhub", symbol="x" * 10_000, status=200, outcome="unknown_symbol"))
    assert len(log.newest()[0].symbol) == 64


@pytest.mark.parametrize(
    ("times", "most"),
    [([], 0), ([5], 1), ([0, 60], 2), ([0, 60.1], 1), ([100, 0, 61, 30, 90], 3), ([1, 1, 1], 3)],
)
def test_busiest_window_begins_anywhere(times: list[float], most: int) -> None:
    assert busiest_window(times, window_s=60) == most


def test_summary_tells_each_provider_apart() -> None:
    log = RequestLog()
    for time in (0, 0.5, 30):
        log.add(received(time))
    log.add(received(0, "alpha_vantage", "rate_limited"))
    assert summary(log.newest(), log.counts()) == {
        "finnhub": {"requests": 3, "outcomes": {"quote": 3}, "busiest_second": 2, "busiest_minute": 3},
        "alpha_vantage": {
            "requests": 1,
            "outcomes": {"rate_limited": 1},
            "busiest_second": 1,
            "busiest_minute": 1,
        },
    }
