"""Who asks for what at which slot, by a clock that runs for days in a moment."""

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from pytest_django import Settings

from prices.models import PollJob
from prices.quota.demand import key_of
from tests.examples import examples
from tests.prices.quota.simulation import (
    DAY,
    MONDAY,
    Slot,
    job_of,
    most_in_a_window,
    requests_of,
    run,
    share,
)

NEW_YORK = ZoneInfo("America/New_York")
HOUR = timedelta(hours=1)
# Without an hour for the closing price.
TRADING_DAYS = {23, 24, 25, 27}


@pytest.fixture(scope="module")
def week() -> list[Slot]:
    """Return a week of the contract's own example, and of the weekend and Monday after it."""
    return run([job_of(["AAPL", "MSFT"], 60)], days=8)


def by_day(times: list[datetime]) -> Counter[int]:
    return Counter(moment.astimezone(NEW_YORK).day for moment in times)


def test_contracts_example_stays_within_the_budget_in_any_window(week: list[Slot]) -> None:
    assert len(week) == 8 * 1440
    # 25 a day less the 5 that GET latest may use.
    assert most_in_a_window(requests_of(week), DAY) == 20


def test_contracts_example_asks_while_the_market_is_open(week: list[Slot]) -> None:
    times = [moment.astimezone(NEW_YORK) for moment in requests_of(week)]
    assert {moment.day for moment in times} == TRADING_DAYS | {30}
    assert min(moment.hour * 60 + moment.minute for moment in times) >= 9 * 60 + 30
    assert max(moment.hour * 60 + moment.minute for moment in times) <= 17 * 60 + 1


def test_contracts_example_uses_the_budget_each_day(week: list[Slot]) -> None:
    counts = by_day(requests_of(week))
    assert all(19 <= counts[day] <= 20 for day in TRADING_DAYS)
    assert counts.total() >= 99


def test_contracts_example_asks_after_the_close_too(week: list[Slot]) -> None:
    closes = {day: datetime(2026, 11, day, 13 if day == 27 else 16, tzinfo=NEW_YORK) for day in TRADING_DAYS}
    for close in closes.values():
        after = {symbol for at, _, symbols in week if close <= at <= close + HOUR for symbol in symbols}
        assert after == {"AAPL", "MSFT"}


def test_contracts_example_is_spread_evenly_over_the_session(week: list[Slot]) -> None:
    times = requests_of(week)
    gaps = [later - earlier for earlier, later in pairwise(times) if later - earlier < 12 * HOUR]
    # 20 in the 7.5 hours from the opening to an hour after the close; on the short day in 4.5.
    assert max(gaps) <= timedelta(seconds=27_000 / 20 * 1.5)
    assert min(gaps) >= timedelta(seconds=16_200 / 20 - 60)


def test_contracts_example_serves_both_symbols_alike(week: list[Slot]) -> None:
    asked = [symbol for _, _, symbols in week for symbol in symbols]
    counts = Counter(asked)
    assert abs(counts["AAPL"] - counts["MSFT"]) <= 1


def test_ten_equal_jobs_ask_as_one() -> None:
    jobs = [job_of(["AAPL", "MSFT"] if number % 2 else ["MSFT", "AAPL"], 60) for number in range(10)]
    allowance = share(jobs)
    assert len(allowance.demands) == 1
    slots = run(jobs, days=1)
    together: dict[datetime, set[frozenset[str]]] = {}
    for due_at, _, symbols in slots:
        together.setdefault(due_at, set()).add(frozenset(symbols))
    assert all(len(asked) == 1 for asked in together.values())
    assert sum(len(next(iter(asked))) for asked in together.values()) in {19, 20}


def test_jobs_that_fit_are_never_held_back() -> None:
    # 12 + 8 requests a day, by night and on the weekend too.
    jobs = [job_of(["AAPL"], 7200), job_of(["MSFT"], 10_800)]
    slots = run(jobs, days=8)
    assert all(symbols == tuple(job.symbols) for _, job, symbols in slots)


def test_job_that_wants_little_gets_it_all_beside_one_that_wants_too_much() -> None:
    small, big = job_of(["IBM"], 14_400), job_of(["AAPL", "MSFT"], 60)
    slots = run([small, big], days=8)
    assert all(symbols == ("IBM",) for _, job, symbols in slots if job is small)
    big_times = requests_of([slot for slot in slots if slot[1] is big])
    assert by_day(big_times)[24] in {13, 14, 15}
    assert most_in_a_window(requests_of(slots), DAY) <= 21


def test_jobs_of_two_markets_each_follow_their_own() -> None:
    london, new_york = job_of(["OCDO.LON"], 60), job_of(["AAPL"], 60)
    slots = run([london, new_york], days=2)
    hours = {
        job.symbols[0]: {at.hour for at, asked_by, symbols in slots if asked_by is job and symbols}
        for job in (london, new_york)
    }
    # 8:00 to 16:30 and 14:30 to 21:00, and an hour more.
    assert hours["OCDO.LON"] <= set(range(8, 18))
    assert hours["AAPL"] <= set(range(14, 23))
    assert most_in_a_window(requests_of(slots), DAY) <= 21


def test_markets_with_less_than_a_request_a_day_do_not_ask_on_the_same_day(settings: Settings) -> None:
    settings.PROVIDER_BUDGETS = {"alpha_vantage": "4/1d"}
    settings.LATEST_BUDGET_SHARE_PERCENT = 0
    names = ["AAPL", "X.LON", "X.TRT", "X.DEX", "X.PAR", "X.AMS", "X.SAO", "X.BSE"]
    slots = run([job_of([name], 600) for name in names], days=12, start=MONDAY - 14 * DAY)
    assert {symbol for _, _, symbols in slots for symbol in symbols} == set(names)
    # Half of them on each day.
    assert max(by_day(requests_of(slots)).values()) <= 5


def test_job_of_unknown_hours_or_coins_is_spread_over_the_whole_day() -> None:
    slots = run([job_of(["BTC/USD", "AAPL"], 60)], days=8)
    times = requests_of(slots)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= timedelta(seconds=86_400 / 20 * 1.5)
    assert most_in_a_window(times, DAY) == 20


def test_jobs_with_less_than_a_request_a_day_take_turns_until_all_had_one() -> None:
    jobs = [job_of([f"A{chr(65 + number)}"], 3600) for number in range(26)]
    jobs += [job_of([f"B{chr(65 + number)}"], 3600) for number in range(26)]
    slots = run(jobs, days=12, start=MONDAY - 2 * 7 * DAY)
    counts = Counter(symbol for _, _, symbols in slots for symbol in symbols)
    assert len(counts) == 52
    assert max(counts.values()) - min(counts.values()) <= 1


def test_job_of_one_slot_a_day_outside_of_the_session_is_asked_all_the_same() -> None:
    # 30 symbols once a day are more than 20 requests, and the slot is at night.
    job = job_of([f"A{chr(65 + number)}" for number in range(26)], 86_400)
    slots = run([job], days=14)
    assert {at.hour for at, _, _ in slots}.isdisjoint(range(14, 23))
    assert len({symbol for _, _, symbols in slots for symbol in symbols}) == 26


def test_first_poll_is_granted_at_once_up_to_a_quarter_of_the_window() -> None:
    job = job_of(["AAPL", "MSFT"], 60)
    job.last_run_at = None
    sunday = MONDAY - DAY / 2
    assert share([job]).symbols_at(job, sunday) == ("AAPL", "MSFT")
    many = job_of([f"A{chr(65 + number)}" for number in range(26)], 60)
    many.last_run_at = None
    assert len(share([many]).symbols_at(many, sunday)) == 5
    assert len(share([many]).symbols_at(many, sunday, used=4)) == 1
    assert share([many]).symbols_at(many, sunday, used=5) == ()


@pytest.mark.parametrize("percent", [0, 100])
def test_share_of_latest_is_kept(settings: Settings, percent: int) -> None:
    settings.LATEST_BUDGET_SHARE_PERCENT = percent
    slots = run([job_of(["AAPL", "MSFT"], 60)], days=2)
    assert most_in_a_window(requests_of(slots) or [MONDAY], DAY) == (25 if percent == 0 else 1)
    assert bool(requests_of(slots)) == (percent == 0)


# --- A budget by the hour: no markets, many jobs ---------------------------------------------------

# Of one-letter names each, so that no two jobs are equal; slots come 26 s late at most.
JOBS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(5, 26)), min_size=1, max_size=6, unique_by=lambda job: job
)
BY_THE_HOUR = property_settings(max_examples=examples(40))


def jobs_by_the_hour(settings: Settings, sizes: list[tuple[int, int]], budget: int) -> list[PollJob]:
    settings.PROVIDER_BUDGETS = {"finnhub": f"{budget}/1h"}
    return [
        job_of([f"{chr(65 + number)}{chr(65 + place)}" for place in range(count)], interval, "finnhub")
        for number, (count, interval) in enumerate(sizes)
    ]


@BY_THE_HOUR
@given(sizes=JOBS, budget=st.integers(1, 400))
def test_no_window_holds_more_than_the_budget(
    settings: Settings, sizes: list[tuple[int, int]], budget: int
) -> None:
    jobs = jobs_by_the_hour(settings, sizes, budget)
    allowance = share(jobs)
    in_full = sum(len(job.symbols) for job in jobs if allowance.grant_of(key_of(job)).in_full)
    slots = run(jobs, days=0.1)
    # Who gets all slots asks once more in a window that begins and ends with a slot.
    assert most_in_a_window(requests_of(slots), HOUR) <= max(budget + in_full, 1)


@BY_THE_HOUR
@given(sizes=JOBS, budget=st.integers(8, 400))
def test_symbols_and_jobs_are_served_alike(
    settings: Settings, sizes: list[tuple[int, int]], budget: int
) -> None:
    jobs = jobs_by_the_hour(settings, sizes, budget)
    allowance = share(jobs)
    slots = run(jobs, days=0.1)
    counts = {}
    for job in jobs:
        asked = Counter(symbol for _, asked_by, symbols in slots if asked_by is job for symbol in symbols)
        times = [asked[symbol] for symbol in job.symbols]
        assert max(times) - min(times) <= 1
        counts[key_of(job)] = asked.total()
        if allowance.grant_of(key_of(job)).in_full:
            assert all(symbols for _, asked_by, symbols in slots if asked_by is job)
    limited = [count for key, count in counts.items() if not allowance.grant_of(key).in_full]
    # Each is within one request of its share, above it or below.
    assert max(limited, default=0) - min(limited, default=0) <= 2


@BY_THE_HOUR
@given(sizes=JOBS, budget=st.integers(8, 400))
def test_every_slot_asks_for_symbols_of_its_job_in_their_order(
    settings: Settings, sizes: list[tuple[int, int]], budget: int
) -> None:
    for _, job, symbols in run(jobs_by_the_hour(settings, sizes, budget), days=0.02):
        assert list(symbols) == [symbol for symbol in job.symbols if symbol in symbols]


def test_limited_requests_of_many_jobs_are_spread_evenly_together(settings: Settings) -> None:
    jobs = jobs_by_the_hour(settings, [(1, 5 + number) for number in range(6)], 60)
    times = requests_of(run(jobs, days=0.1))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    # One a minute, and each waits for its job's next slot.
    assert max(gaps) <= timedelta(seconds=60 + 12)
    assert min(gaps) >= timedelta(seconds=60 - 12)
