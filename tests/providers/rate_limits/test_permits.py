import pytest
from pytest_django import Settings

from providers.base import ErrorKind, Results
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import SentTimes, remaining
from providers.rate_limits.permits import (
    DEFAULT_HOLD_S,
    Granted,
    Refusal,
    outcome_kind,
    report_outcome,
    request_permit,
)
from providers.rate_limits.redis_scripts import key_base
from tests.providers.hammering import no_history
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    failure,
    granted,
    granted_soon,
    quote,
    refused,
    run_out,
    send,
    use_own_scope,
)
from tests.waiting import wait_until


def test_permit_for_the_simulated_provider_needs_no_redis(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    permit = request_permit("simulated", caller="job", load_history=no_history)
    assert isinstance(permit, Granted)
    report_outcome(permit, quote(), answer=None)


def test_permits_without_limits_go_on(settings: Settings) -> None:
    use_own_scope(settings, "none")
    for _ in range(50):
        send()
    assert remaining(PROVIDER).windows == ()


def test_refusal_by_budget_names_the_window(settings: Settings) -> None:
    use_own_scope(settings, "5/100ms,3/1m")
    for _ in range(3):
        send()
    found = refused()
    assert (found.refusal, found.window_s) == (Refusal.BUDGET, 60)
    assert found.reason == "budget: used up (3 requests a minute)"
    assert found.retry_after_s is not None
    assert 30 < found.retry_after_s <= 60


@pytest.mark.parametrize(("told_s", "held_s"), [(17.0, 17.0), (86_400.0, 86_400.0), (None, DEFAULT_HOLD_S)])
def test_rate_limited_holds_until_retry_after(
    settings: Settings, told_s: float | None, held_s: float
) -> None:
    use_own_scope(settings, "60/1m")
    send(failure(ErrorKind.RATE_LIMITED, retry_after=told_s))
    found = refused()
    assert found.refusal == Refusal.HELD
    assert found.reason == (
        "rate limited: the provider refused for its limit, and is not asked until that is over"
    )
    assert found.retry_after_s is not None
    assert held_s / 2 < remaining(PROVIDER).held_for_s <= found.retry_after_s <= held_s


@pytest.mark.parametrize("told_s", [17.0, None])
def test_hold_is_named_in_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture, told_s: float | None
) -> None:
    use_own_scope(settings, "60/1m")
    send(failure(ErrorKind.RATE_LIMITED, retry_after=told_s))
    logged = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    (held,) = [line for line in logged if line["event"] == "provider.held"]
    assert (held["provider"], held["hold_s"]) == (PROVIDER, told_s or DEFAULT_HOLD_S)
    assert held["reason"] == "a failure"


def test_hold_ends_by_itself(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    send(failure(ErrorKind.RATE_LIMITED, retry_after=3600))
    assert refused().refusal == Refusal.HELD
    run_out(f"{key_base(PROVIDER)}:hold")
    granted_soon()


def test_hold_is_never_shortened(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    early, late = granted(), granted()
    report_outcome(early, failure(ErrorKind.RATE_LIMITED, retry_after=100), answer=answer())
    report_outcome(late, failure(ErrorKind.RATE_LIMITED, retry_after=1), answer=answer())
    assert remaining(PROVIDER).held_for_s > 90


def test_refused_call_that_is_superseded_says_nothing_of_the_provider(settings: Settings) -> None:
    use_own_scope(settings, "60/1m", BREAKER_FAILURES=1)
    for kind in (ErrorKind.RATE_LIMITED, ErrorKind.UPSTREAM_ERROR):
        report_outcome(granted(), failure(kind), answer=answer(), is_superseded=True)
    send()
    windows = remaining(PROVIDER).windows
    assert windows is not None
    assert windows[0].used == 3
    assert breaker_state(PROVIDER).last_error is None


def test_permit_refused_by_budget_takes_no_probe(settings: Settings) -> None:
    use_own_scope(settings, "1/1d", timeout_s=20, BREAKER_FAILURES=1, BREAKER_MAX_COOLDOWN_S=0.05)
    send(failure(ErrorKind.UPSTREAM_ERROR))
    wait_until(lambda: breaker_state(PROVIDER).state == "half_open")
    assert refused().refusal == Refusal.BUDGET
    settings.PROVIDER_BUDGETS = {PROVIDER: "2/1d"}
    # A probe that nobody sends would stand in the way for 30 s.
    granted()


def test_permit_refused_by_breaker_costs_no_budget(settings: Settings) -> None:
    use_own_scope(settings, "25/1d", BREAKER_FAILURES=1)
    send(failure(ErrorKind.UPSTREAM_ERROR))
    for _ in range(5):
        assert refused().refusal == Refusal.BROKEN
    windows = remaining(PROVIDER).windows
    assert windows is not None
    assert windows[0].used == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ErrorKind.UPSTREAM_ERROR, "broken: the provider did not work when it was last asked"),
        (ErrorKind.INVALID_KEY, "broken: the provider refused the key when it was last asked"),
    ],
)
def test_refusal_by_breaker_says_why(settings: Settings, kind: ErrorKind, reason: str) -> None:
    use_own_scope(settings, "25/1d", BREAKER_FAILURES=1, BREAKER_MAX_COOLDOWN_S=3600)
    send(failure(kind))
    assert refused().reason == reason


def test_history_that_cannot_be_loaded_is_loud(settings: Settings) -> None:
    use_own_scope(settings, "60/1m")

    def fail(provider: str, seconds: float) -> SentTimes:
        raise LookupError(provider)

    with pytest.raises(LookupError):
        request_permit(PROVIDER, caller="job", load_history=fail)


@pytest.mark.parametrize(
    ("results", "kind"),
    [
        (quote(), None),
        (quote() | {"B": failure(ErrorKind.MALFORMED)["AAPL"]}, None),
        (
            failure(ErrorKind.MALFORMED) | {"B": failure(ErrorKind.UNKNOWN_SYMBOL)["AAPL"]},
            ErrorKind.MALFORMED,
        ),
        (
            failure(ErrorKind.UPSTREAM_ERROR) | {"B": failure(ErrorKind.INVALID_KEY)["AAPL"]},
            ErrorKind.INVALID_KEY,
        ),
        ({}, None),
        *[(failure(kind), kind) for kind in ErrorKind],
    ],
)
def test_outcome_is_a_quote_or_the_most_telling_error(results: Results, kind: ErrorKind | None) -> None:
    assert outcome_kind(results) == kind
