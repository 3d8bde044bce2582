"""Requests on their way out: counted one by one, and looked at just before they go."""

import time

import pytest
from pytest_django import Settings

from providers.base import ErrorKind
from providers.rate_limits import outgoing as outgoing_module
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import remaining
from providers.rate_limits.outgoing import NotSentError, Outgoing, current_outgoing, sending
from providers.rate_limits.permits import Refusal, report_outcome
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    failure,
    granted,
    granted_soon,
    quote,
    send,
    use_own_scope,
)


def used() -> int:
    windows = remaining(PROVIDER).windows
    assert windows is not None
    return windows[0].used


def send_request(outgoing: Outgoing, *, within_s: float = 5.0) -> None:
    with outgoing.request(deadline=time.monotonic() + within_s):
        pass


def test_each_request_of_a_permit_is_counted_once(settings: Settings) -> None:
    use_own_scope(settings, "10/1m")
    outgoing = Outgoing(granted())
    for count in (1, 2, 3):
        send_request(outgoing)
        assert used() == count
    report_outcome(outgoing.permit, quote(), answer=answer(), entry=outgoing.entry)
    assert used() == 3


def test_request_that_has_ended_leaves_the_window(settings: Settings) -> None:
    use_own_scope(settings, "2/100ms", timeout_s=10)
    outgoing = Outgoing(granted())
    started = time.monotonic()
    for _ in range(5):
        send_request(outgoing)
    assert 0.2 <= time.monotonic() - started < 2


def test_further_request_beyond_the_budget_is_not_sent(settings: Settings) -> None:
    use_own_scope(settings, "1/1m")
    outgoing = Outgoing(granted())
    send_request(outgoing)
    with pytest.raises(NotSentError) as caught:
        send_request(outgoing)
    assert caught.value.refused is not None
    assert caught.value.refused.refusal == Refusal.BUDGET
    assert used() == 1


def test_request_that_nobody_wants_any_more_is_not_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_own_scope(settings, "10/1m")
    monkeypatch.setattr(outgoing_module, "LOOKED_JUST_NOW_S", 0)
    looks = iter([False])
    outgoing = Outgoing(granted(), is_wanted=lambda: next(looks))
    for _ in range(2):
        with pytest.raises(NotSentError) as caught:
            send_request(outgoing)
        assert caught.value.refused is None
    outgoing.cancel()
    assert used() == 0


def test_permit_given_back_makes_room(settings: Settings) -> None:
    use_own_scope(settings, "1/1m")
    outgoing = Outgoing(granted())
    outgoing.give_back_permit()
    send()
    with pytest.raises(NotSentError):
        send_request(outgoing)


def test_cancelled_probe_is_left_to_another(settings: Settings) -> None:
    use_own_scope(settings, "none", BREAKER_FAILURES=1, BREAKER_MAX_COOLDOWN_S=1, timeout_s=10)
    send(failure(ErrorKind.UPSTREAM_ERROR), status=503)
    outgoing = Outgoing(granted_soon())
    outgoing.cancel()
    report_outcome(granted(), quote(), answer=answer())
    assert breaker_state(PROVIDER).state == "closed"


@pytest.mark.parametrize(
    ("budget", "others", "more", "fits"),
    [
        ("none", 0, 2, True),
        ("2/1s", 0, 2, True),
        ("2/1s", 0, 5, False),
        ("1/1s", 0, 2, False),
        ("2/1m", 0, 1, True),
        ("2/1m", 0, 2, False),
        ("5/1m", 2, 2, True),
        ("5/1m", 3, 2, False),
        ("10/1d", 0, 7, True),
        ("10/1d", 0, 8, False),
    ],
)
def test_time_for_several_is_told(
    settings: Settings, budget: str, others: int, more: int, fits: bool
) -> None:
    use_own_scope(settings, budget, timeout_s=10)
    for _ in range(others):
        send()
    outgoing = Outgoing(granted())
    assert outgoing.has_time_for(more, deadline=time.monotonic() + 1.5) is fits


def test_requests_belong_to_what_the_thread_sends(settings: Settings) -> None:
    use_own_scope(settings, "10/1m")
    with sending(Outgoing(granted())) as outgoing:
        assert current_outgoing(PROVIDER) is outgoing
    assert current_outgoing(PROVIDER) is not outgoing
