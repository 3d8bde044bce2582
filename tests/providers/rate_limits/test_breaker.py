from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from pytest_django import Settings

from providers.base import ErrorKind
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.permits import Granted, Refusal, report_outcome
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    ask,
    failure,
    granted,
    granted_soon,
    quote,
    refused,
    send,
    use_own_scope,
)
from tests.waiting import wait_until

BROKEN = failure(ErrorKind.UPSTREAM_ERROR)


def use_breaker(settings: Settings, *, failures: int = 3, max_cooldown_s: float = 0.1) -> None:
    use_own_scope(settings, "none", BREAKER_FAILURES=failures, BREAKER_MAX_COOLDOWN_S=max_cooldown_s)


def is_half_open() -> bool:
    return breaker_state(PROVIDER).state == "half_open"


def test_breaker_never_used_is_closed(settings: Settings) -> None:
    use_breaker(settings)
    state = breaker_state(PROVIDER)
    assert (state.state, state.failures, state.retry_after_s) == ("closed", 0, 0)
    assert (state.since, state.last_success, state.last_error, state.last_error_at) == (None,) * 4


def test_breaker_opens_after_failures_in_a_row(settings: Settings) -> None:
    use_breaker(settings, max_cooldown_s=4)
    send(BROKEN)
    send(BROKEN)
    assert breaker_state(PROVIDER).state == "closed"
    send(BROKEN)
    state = breaker_state(PROVIDER)
    assert (state.state, state.failures, state.last_error) == ("open", 3, ErrorKind.UPSTREAM_ERROR)
    assert state.since == state.last_error_at
    found = refused()
    assert found.refusal == Refusal.BROKEN
    assert found.reason == "broken: the provider did not work when it was last asked"
    assert found.retry_after_s is not None
    assert 0.3 < found.retry_after_s <= 1


def test_breaker_stays_closed_where_an_answer_lies_between(settings: Settings) -> None:
    use_breaker(settings)
    for _ in range(3):
        send(BROKEN)
        send(BROKEN)
        send()
    state = breaker_state(PROVIDER)
    assert (state.state, state.failures) == ("closed", 0)
    assert state.last_success is not None
    assert abs((datetime.now(UTC) - state.last_success).total_seconds()) < 5


@pytest.mark.parametrize(
    "kind",
    [ErrorKind.UNKNOWN_SYMBOL, ErrorKind.NOT_ENTITLED, ErrorKind.MALFORMED],
)
def test_breaker_counts_no_failure_of_one_symbol(settings: Settings, kind: ErrorKind) -> None:
    use_breaker(settings, failures=1)
    for _ in range(3):
        send(failure(kind))
    state = breaker_state(PROVIDER)
    assert (state.state, state.failures, state.last_success) == ("closed", 0, None)
    assert state.last_error == (kind if kind == ErrorKind.MALFORMED else None)


@pytest.mark.parametrize("status", [400, 404, 406, 410, 422])
def test_breaker_counts_no_failure_of_one_request(settings: Settings, status: int) -> None:
    use_breaker(settings, failures=1)
    for _ in range(3):
        send(BROKEN, status=status)
    state = breaker_state(PROVIDER)
    assert (state.state, state.failures, state.last_error) == ("closed", 0, ErrorKind.UPSTREAM_ERROR)


@pytest.mark.parametrize("status", [301, 401, 403, 408, 500, 503])
def test_breaker_counts_a_failure_of_all_requests(settings: Settings, status: int) -> None:
    use_breaker(settings, failures=1)
    send(BROKEN, status=status)
    assert breaker_state(PROVIDER).failures == 1


def test_breaker_leaves_rate_limits_to_the_budget(settings: Settings) -> None:
    use_breaker(settings, failures=1)
    send(failure(ErrorKind.RATE_LIMITED, retry_after=0.05))
    assert breaker_state(PROVIDER).state == "closed"
    assert breaker_state(PROVIDER).last_error == ErrorKind.RATE_LIMITED


def test_breaker_opens_at_once_for_a_refused_key(settings: Settings) -> None:
    use_breaker(settings, failures=100, max_cooldown_s=60)
    send(failure(ErrorKind.INVALID_KEY))
    state = breaker_state(PROVIDER)
    assert (state.state, state.last_error) == ("open", ErrorKind.INVALID_KEY)
    assert 29 < state.retry_after_s <= 60
    use_breaker(settings)
    granted()


def test_breaker_half_open_lets_one_probe_through_among_threads(settings: Settings) -> None:
    use_breaker(settings, failures=1)
    send(BROKEN)
    wait_until(is_half_open)
    with ThreadPoolExecutor(8) as pool:
        permits = [future.result() for future in [pool.submit(ask) for _ in range(8)]]
    probes = [permit for permit in permits if isinstance(permit, Granted)]
    assert len(probes) == 1
    assert is_half_open()
    report_outcome(probes[0], quote(), answer=answer())
    assert breaker_state(PROVIDER).state == "closed"
    for _ in range(8):
        granted()


def test_breaker_opens_again_for_longer_after_a_failed_probe(settings: Settings) -> None:
    use_breaker(settings, failures=1, max_cooldown_s=4)
    send(BROKEN)
    opened = breaker_state(PROVIDER)
    assert opened.retry_after_s <= 1
    report_outcome(granted_soon(), BROKEN, answer=None)
    again = breaker_state(PROVIDER)
    assert (again.state, again.failures, again.since) == ("open", 2, opened.since)
    assert 0.8 < again.retry_after_s <= 2


def test_breaker_cools_down_no_longer_than_the_setting(settings: Settings) -> None:
    use_breaker(settings, failures=1, max_cooldown_s=0.05)
    send(BROKEN)
    for _ in range(6):
        report_outcome(granted_soon(), BROKEN, answer=None)
        assert breaker_state(PROVIDER).retry_after_s <= 0.05


def test_breaker_begins_with_a_short_cooldown_after_each_recovery(settings: Settings) -> None:
    use_breaker(settings, failures=1, max_cooldown_s=4)
    send(BROKEN)
    report_outcome(granted_soon(), quote(), answer=answer())
    send(BROKEN)
    assert breaker_state(PROVIDER).retry_after_s <= 1


def test_breaker_survives_a_killed_prober(settings: Settings) -> None:
    use_breaker(settings, failures=1, max_cooldown_s=0.05)
    send(BROKEN)
    killed = granted_soon()
    assert refused().refusal == Refusal.BROKEN
    second = granted_soon()
    assert second.request_id != killed.request_id
    assert refused().refusal == Refusal.BROKEN
    report_outcome(killed, quote(), answer=answer())
    assert is_half_open()
    report_outcome(second, quote(), answer=answer())
    assert breaker_state(PROVIDER).state == "closed"


def test_breaker_heeds_only_the_probe_once_it_is_open(settings: Settings) -> None:
    use_breaker(settings, failures=1, max_cooldown_s=4)
    slow, slower, breaking = granted(), granted(), granted()
    report_outcome(breaking, BROKEN, answer=None)
    opened = breaker_state(PROVIDER)
    report_outcome(slow, BROKEN, answer=None)
    report_outcome(slower, quote(), answer=answer())
    state = breaker_state(PROVIDER)
    assert (state.state, state.failures, state.since) == ("open", 1, opened.since)
    assert state.retry_after_s <= 1
    assert state.last_success is not None
