import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from pytest_django import Settings

from dev.pytest_services import Services
from providers.base import ErrorKind
from providers.rate_limits import permits
from providers.rate_limits.budget import LoadHistory, SentTimes, WindowUse, limits_of, remaining, restore
from providers.rate_limits.limits import Limit, parse_limits
from providers.rate_limits.permits import Caller, Granted, Refusal, report_outcome, request_permit
from providers.rate_limits.redis_scripts import keys_of
from providers.registry import PROVIDER_NAMES
from tests.examples import examples
from tests.logged import events_logged
from tests.providers.hammering import hammer, pass_time
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    ask,
    connect,
    failure,
    granted,
    granted_soon,
    history,
    lose_counts,
    quote,
    refused,
    send,
    use_own_scope,
)
from tests.waiting import wait_until


def windows() -> tuple[WindowUse, ...]:
    found = remaining(PROVIDER).windows
    assert found is not None
    return found


def used() -> list[int]:
    return [window.used for window in windows()]


def most_in_a_window(times: Sequence[float], window_s: float) -> int:
    ordered = sorted(times)
    return max((sum(start <= at <= start + window_s for at in ordered) for start in ordered), default=0)


def assert_within(limits: Sequence[Limit], times: Sequence[float]) -> None:
    for limit in limits:
        assert most_in_a_window(times, limit.window_s) <= limit.requests, limit


def test_default_budgets_can_be_read_for_every_provider(settings: Settings) -> None:
    assert {name: limits_of(name) for name in PROVIDER_NAMES} == {
        "alpha_vantage": (Limit(1, 1), Limit(25, 86_400)),
        "finnhub": (Limit(30, 1), Limit(60, 60)),
        "yfinance": (Limit(2, 1), Limit(30, 60)),
        "simulated": (),
    }
    assert settings.PROVIDER_BUDGETS.keys() == set(PROVIDER_NAMES)


# One pause before each permit, in ms, and how long its request is then under way.
STEPS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), min_size=20, max_size=40)


@property_settings(max_examples=examples(12))
@given(steps=STEPS)
def test_no_window_ever_holds_more_than_allowed(settings: Settings, steps: list[tuple[int, int]]) -> None:
    use_own_scope(settings, "3/40ms,6/150ms")
    arrivals: list[float] = []
    for number, (pause_ms, under_way_ms) in enumerate(steps):
        pass_time(pause_ms)
        permit = ask()
        if not isinstance(permit, Granted):
            assert permit.refusal == Refusal.BUDGET
            continue
        # The provider counts a request anywhere between its permit and its answer.
        arrivals.append(time.monotonic())
        pass_time(under_way_ms)
        if number % 2:
            arrivals[-1] = time.monotonic()
        report_outcome(permit, quote(), answer=answer())
    assert arrivals
    assert_within(parse_limits("3/40ms,6/150ms"), arrivals)


HAMMERED = "8/150ms,30/1s"
PROCESSES = 4


def test_processes_that_hammer_stay_within_limits_together(settings: Settings) -> None:
    api_key = use_own_scope(settings, HAMMERED)
    # Not forked: this process has threads.
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(PROCESSES)
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(target=hammer, args=(api_key, HAMMERED, together, theirs)) for _, theirs in pipes
    ]
    for process in processes:
        process.start()
    try:
        assert all(ours.poll(60) for ours, _ in pipes), "a process did not finish"
        by_process = [ours.recv() for ours, _ in pipes]
    finally:
        for process, (ours, theirs) in zip(processes, pipes, strict=True):
            process.kill()
            process.join()
            process.close()
            ours.close()
            theirs.close()
    arrivals = [at for times in by_process for at in times]
    assert_within(parse_limits(HAMMERED), arrivals)
    assert all(by_process)
    # The budget is there to be used: a window of 30 is full, however slow the machine is.
    assert len(arrivals) >= 30


def test_request_under_way_counts_until_it_is_answered(settings: Settings) -> None:
    use_own_scope(settings, "1/100ms", timeout_s=20)
    permit = granted()
    pass_time(150)
    assert refused().refusal == Refusal.BUDGET
    reported = time.monotonic()
    report_outcome(permit, quote(), answer=answer())
    granted_soon()
    assert time.monotonic() - reported >= 0.1


def test_request_never_reported_counts_until_it_must_have_ended(settings: Settings) -> None:
    use_own_scope(settings, "1/100ms", timeout_s=0.2)
    granted()
    pass_time(250)
    assert refused().refusal == Refusal.BUDGET
    granted_soon()


def test_latest_may_use_its_share_of_a_day_only(settings: Settings) -> None:
    use_own_scope(settings, "100/1m,25/1d")
    for _ in range(5):
        granted("latest")
    found = refused("latest")
    assert (found.refusal, found.window_s) == (Refusal.LATEST_SHARE, 86_400)
    assert found.reason == "budget: the part for GET latest and fallbacks is used up (5 requests a day)"
    for _ in range(20):
        granted("job")
    assert refused("job").refusal == Refusal.BUDGET


def test_latest_share_is_a_setting(settings: Settings) -> None:
    use_own_scope(settings, "25/1d", LATEST_BUDGET_SHARE_PERCENT=0)
    found = refused("latest")
    assert (found.refusal, found.retry_after_s) == (Refusal.LATEST_SHARE, 86_400)
    settings.LATEST_BUDGET_SHARE_PERCENT = 100
    granted("latest")


def test_latest_may_use_all_of_a_shorter_window(settings: Settings) -> None:
    use_own_scope(settings, "5/1m")
    for _ in range(5):
        granted("latest")


def test_jobs_leave_the_share_of_latest(settings: Settings) -> None:
    use_own_scope(settings, "4/1d", LATEST_BUDGET_SHARE_PERCENT=50)
    for _ in range(2):
        granted("job")
    found = refused("job")
    assert (found.refusal, found.reason) == (Refusal.BUDGET, "budget: used up (2 requests a day)")
    for _ in range(2):
        granted("latest")
    assert refused("latest").refusal == Refusal.BUDGET


def test_remaining_tells_each_window(settings: Settings) -> None:
    use_own_scope(settings, "2/100ms,60/1m")
    assert remaining(PROVIDER).windows is None
    send()
    short, minute = windows()
    assert (short.limit, short.window_s, short.used, short.left) == (2, 0.1, 1, 1)
    assert (minute.limit, minute.window_s, minute.used, minute.left) == (60, 60, 1, 59)
    assert 30 < minute.resets_in_s <= 60
    wait_until(lambda: used() == [0, 1])
    assert windows()[0].resets_in_s == 0
    assert remaining(PROVIDER).held_for_s == 0


# --- What the provider's headers tell ---


def told(left: int, *, resets_in_s: float | None = None) -> dict[str, str]:
    headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": str(left)}
    if resets_in_s is not None:
        headers["x-ratelimit-reset"] = str(int(time.time() + resets_in_s))
    return headers


def test_headers_correct_the_count_downwards(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    send(headers=told(20))
    assert windows()[0].left == 20
    send(headers=told(19))
    assert windows()[0].left == 19
    send(headers=told(3))
    assert windows()[0].left == 3


def test_headers_never_correct_the_count_upwards(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    for left in (59, 60, 1000):
        send(headers=told(left))
    assert used() == [3]


def test_headers_that_leave_nothing_end_the_requests(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    send(headers=told(0))
    assert refused().refusal == Refusal.BUDGET


def test_headers_count_until_the_provider_begins_anew(settings: Settings) -> None:
    use_own_scope(settings, "30/1s,60/1m")
    send(headers=told(0, resets_in_s=2))
    assert windows()[0].used == 1
    found = refused()
    assert found.retry_after_s is not None
    assert 0 < found.retry_after_s <= 2.1
    granted_soon()


def test_limit_that_is_not_known_is_named_once(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permits, "_with_unknown_limit", set())
    use_own_scope(settings, "30/1s,60/1m")
    for _ in range(2):
        send(headers={**told(0), "x-ratelimit-limit": "300"})
    assert used() == [2, 2]
    assert events_logged(caplog)["budget.unknown_limit"] == 1


@pytest.mark.parametrize("status", [500, 502, 503, 522])
def test_headers_of_what_stands_before_the_provider_tell_nothing(settings: Settings, status: int) -> None:
    use_own_scope(settings, "60/1m")
    send(failure(ErrorKind.UPSTREAM_ERROR), headers=told(0), status=status)
    assert used() == [1]


def test_headers_of_lost_counts_add_nothing(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    permit = granted()
    lose_counts()
    report_outcome(permit, quote(), answer=answer(told(20)))
    granted()
    assert used() == [2]


# --- Redis lost the counts ---


def test_counts_are_taken_from_history_before_the_first_permit(settings: Settings) -> None:
    use_own_scope(settings, "10/1s,60/1m")
    asked: list[tuple[str, float]] = []

    def load(provider: str, seconds: float) -> SentTimes:
        asked.append((provider, seconds))
        return history(job=[1.5 + number / 2 for number in range(58)])(provider, seconds)

    for _ in range(2):
        assert isinstance(request_permit(PROVIDER, caller="job", load_history=load), Granted)
    assert asked == [(PROVIDER, 60.0)]
    assert used() == [2, 60]
    assert refused().refusal == Refusal.BUDGET


def test_history_tells_what_latest_used(settings: Settings) -> None:
    use_own_scope(settings, "25/1d")
    load = history(job=[100, 200], latest=[300, 400, 500, 600, 700])
    found = request_permit(PROVIDER, caller="latest", load_history=load)
    assert not isinstance(found, Granted)
    assert found.refusal == Refusal.LATEST_SHARE
    assert used() == [7]


def test_history_before_the_window_counts_no_more(settings: Settings) -> None:
    use_own_scope(settings, "5/1m")
    load = history(job=[61, 70, 3600, 59])
    assert isinstance(request_permit(PROVIDER, caller="job", load_history=load), Granted)
    assert used() == [2]


def test_processes_that_restore_at_once_lose_and_double_nothing(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    load = history(job=[2 + number / 2 for number in range(50)], latest=[40, 41, 42])

    def take(caller: Caller) -> list[Granted]:
        permits = [request_permit(PROVIDER, caller=caller, load_history=load) for _ in range(3)]
        return [permit for permit in permits if isinstance(permit, Granted)]

    with ThreadPoolExecutor(8) as pool:
        taken = [future.result() for future in [pool.submit(take, "job") for _ in range(8)]]
    assert sum(map(len, taken)) == 7
    assert used() == [60]


def test_restore_repeated_adds_nothing(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    times = history(job=[2, 3, 3, 4])(PROVIDER, 60)
    assert restore(PROVIDER, times)
    granted()
    assert restore(PROVIDER, times)
    assert used() == [5]


def test_restore_keeps_what_history_does_not_know(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    granted()
    granted()
    assert restore(PROVIDER, history(job=[5])(PROVIDER, 60))
    assert used() == [3]


def test_history_of_another_clock_is_no_later_than_now(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    granted()
    restore(PROVIDER, history(job=[-3600, -7200])(PROVIDER, 60))
    assert used() == [3]
    assert windows()[0].resets_in_s <= 60.1


def test_counts_lost_under_load_wait_for_what_is_under_way(settings: Settings) -> None:
    use_own_scope(settings, "5/1m", timeout_s=1.2)
    permits = [granted() for _ in range(5)]
    lose_counts()
    first = request_permit(PROVIDER, caller="job", load_history=history(job=[0.05] * 3))
    assert not isinstance(first, Granted)
    assert first.refusal == Refusal.SETTLING
    assert first.reason == "budget: its counts are being restored"
    assert first.retry_after_s is not None
    assert 0 < first.retry_after_s <= 1.8
    assert remaining(PROVIDER).windows is None
    # By then the other two were answered and stored.
    stored = history(job=[0.05] * 5)
    second = wait_until(lambda: no_longer_settling(stored))
    assert second == Refusal.BUDGET
    assert len(permits) == 5


def no_longer_settling(load: LoadHistory) -> Refusal | None:
    found = request_permit(PROVIDER, caller="job", load_history=load)
    assert not isinstance(found, Granted)
    return None if found.refusal == Refusal.SETTLING else found.refusal


def test_answer_reported_after_the_loss_is_counted(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    permit = granted()
    lose_counts()
    report_outcome(permit, quote(), answer=answer())
    granted()
    assert used() == [2]


def test_redis_restarted_with_its_data_asks_history_and_doubles_nothing(
    settings: Settings, services: Services
) -> None:
    use_own_scope(settings, "60/1m")
    # Four that the log on disk has too, and one that it lacks.
    load = history(job=[0, 0, 0, 0, 30])
    for _ in range(4):
        send()
    services.valkey.stop()
    services.valkey.start()
    assert remaining(PROVIDER).windows is None
    assert isinstance(request_permit(PROVIDER, caller="job", load_history=load), Granted)
    assert used() == [6]


def test_counts_of_a_provider_go_once_nobody_asks_any_more(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    granted("latest")
    send()
    with connect() as client:
        ages = [client.pttl(name) for name in keys_of(PROVIDER) if client.exists(name)]
    assert len(ages) == 3
    assert all(age > 60_000 for age in ages)


def test_log_holds_no_more_than_its_longest_window(settings: Settings) -> None:
    use_own_scope(settings, "100/50ms", timeout_s=0.01)
    for _ in range(3):
        for _ in range(10):
            send()
        wait_until(lambda: used() == [0])
    send()
    with connect() as client:
        assert client.zcard(keys_of(PROVIDER)[0]) == 2
