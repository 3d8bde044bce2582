"""Permits: before a request goes out, its provider's breaker and budget are asked, in one round trip.

Each permit is for one request, and what became of that is reported, in one round trip more.
"""

import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import structlog

from providers.base import ErrorKind, ProviderError, Quote, RawAnswer, Results, refuses_this_request
from providers.breaker import BREAKER_LUA, breaker_outcome
from providers.budget import BUDGET_LUA, LoadHistory, budget_question, limits_of, restore
from providers.limits import Limit, in_words, told_by_headers
from providers.shared_state import SharedStateError, call_script
from providers.simulated import Simulated

log = structlog.get_logger(__name__)

# "job": what the planner shares out (prices/quota). "latest": calls of GET latest, and polls that fall back.
Caller = Literal["job", "latest"]

# A provider that refuses and does not say for how long: Finnhub counts by the minute.
UNTOLD_HOLD_S = 60.0

# These send nothing over a network.
_UNMETERED = frozenset({Simulated.name})
# What an answer comes to that has several errors and no quote: the most telling kind.
_BY_WEIGHT = (
    ErrorKind.RATE_LIMITED,
    ErrorKind.INVALID_KEY,
    ErrorKind.UPSTREAM_ERROR,
    ErrorKind.MALFORMED,
    ErrorKind.NOT_ENTITLED,
    ErrorKind.UNKNOWN_SYMBOL,
)

_REQUEST = (
    BUDGET_LUA
    + BREAKER_LUA
    + """
local function refusal()
  if #ask.limits > 0 and not is_complete() then
    local wait = redis.call('PTTL', settling)
    return {reason = wait > 0 and 'settling' or 'history', wait = wait}
  end
  local held = redis.call('PTTL', hold)
  if held > 0 then return {reason = 'held', wait = held} end
  local broken = breaker_wait()
  if broken > 0 then return {reason = 'broken', wait = broken} end
  return budget_refusal()
end

local refused = refusal()
if refused then return cjson.encode(refused) end
count_request(now + ask.under_way)
note_probe()
return '{}'
"""
)

_REPORT = (
    BUDGET_LUA
    + BREAKER_LUA
    + """
count_request(now)
if ask.told and is_complete() then correct(ask.told) end
if ask.hold > 0 then hold_for(ask.hold) end
if ask.outcome then note_outcome(ask.outcome) end
return '{}'
"""
)

# Along with a request that has a permit: neither the breaker nor history is asked again.
_ACCOMPANY = (
    BUDGET_LUA
    + """
local refused = budget_refusal()
if refused then return cjson.encode(refused) end
count_request(now + ask.under_way)
return '{}'
"""
)


class Refusal(StrEnum):
    """Why no request may be sent."""

    BUDGET = "budget"
    LATEST_SHARE = "latest_share"
    HELD = "held"
    BROKEN = "broken"
    SETTLING = "settling"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Granted:
    """One request may be sent, now; what became of it is to be reported."""

    provider: str
    caller: Caller
    request_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No request may be sent.

    `reason` is for people. `retry_after_s` is when asking again makes sense, None where nobody knows;
    it may be refused then too, or granted before, if others ask and report meanwhile. `window_s` is the
    window of the budget that is used up.
    """

    refusal: Refusal
    reason: str
    retry_after_s: float | None = None
    window_s: float | None = None


def is_metered(provider: str) -> bool:
    """Tell whether the provider's requests are counted: all that go over a network are."""
    return provider not in _UNMETERED


def request_permit(provider: str, *, caller: Caller, load_history: LoadHistory) -> Granted | Refused:
    """Ask whether one request may be sent to the provider now; if so it is counted.

    `load_history` is called where Redis does not have the counts: after its first start, and after
    each restart. What it raises is raised here.
    """
    permit = Granted(provider, caller, uuid.uuid4().hex)
    if not is_metered(provider):
        return permit
    try:
        found = _ask(permit)
        if found.get("reason") == "history":
            longest_s = max(limit.window_s for limit in limits_of(provider))
            restore(provider, load_history(provider, longest_s))
            found = _ask(permit)
    except SharedStateError as error:
        return Refused(Refusal.UNAVAILABLE, f"budget unavailable: {error}")
    return _refused(found) if found else permit


def report_outcome(
    permit: Granted, results: Results, *, answer: RawAnswer | None, is_replaced: bool = False
) -> None:
    """Tell what became of a request: its results, and its answer if there was one.

    `is_replaced`: other calls of the provider take the place of this one (Yahoo's chart after a refused
    quote), so that its refusal is no word on the provider. Never raises where Redis is away: the
    request then counts as under way until its time-out is over.
    """
    if not is_metered(permit.provider):
        return
    try:
        call_script(_REPORT, permit.provider, _question(permit) | _told(permit, results, answer, is_replaced))
    except SharedStateError as error:
        log.warning("permit.not_reported", provider=permit.provider, reason=str(error))


def wait_to_accompany(provider: str, *, until: float) -> bool:
    """Wait until a request may go out that belongs to one with a permit, such as for a cookie, and count it.

    Tells whether it may: not where the budget has no room before the monotonic clock says `until`, or where
    Redis is away.
    """
    if not is_metered(provider):
        return True
    question = _question(Granted(provider, "job", uuid.uuid4().hex))
    while True:
        try:
            found = call_script(_ACCOMPANY, provider, question)
        except SharedStateError:
            return False
        if not found:
            return True
        wait_s = found["wait"] / 1000
        if time.monotonic() + wait_s >= until:
            return False
        time.sleep(wait_s)


def outcome_kind(results: Results) -> ErrorKind | None:
    """Give None where there is a quote among the results, else the most telling kind of their errors."""
    if any(isinstance(result, Quote) for result in results.values()):
        return None
    kinds = {result.kind for result in results.values() if isinstance(result, ProviderError)}
    return next((kind for kind in _BY_WEIGHT if kind in kinds), None)


def _ask(permit: Granted) -> dict[str, Any]:
    found: dict[str, Any] = call_script(_REQUEST, permit.provider, _question(permit))
    return found


def _question(permit: Granted) -> dict[str, Any]:
    ours = {"id": permit.request_id, "caller": permit.caller}
    return budget_question(limits_of(permit.provider)) | ours


def _told(permit: Granted, results: Results, answer: RawAnswer | None, is_replaced: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"hold": 0 if is_replaced else _hold_ms(results)}
    if not is_replaced:
        told["outcome"] = breaker_outcome(outcome_kind(results), works=refuses_this_request(answer))
    if answer is not None:
        by_headers = told_by_headers(limits_of(permit.provider), answer.headers, answer.received_at)
        told |= {"told": by_headers} if by_headers else {}
    return told


def _hold_ms(results: Results) -> int:
    limited = [
        UNTOLD_HOLD_S if result.retry_after is None else result.retry_after
        for result in results.values()
        if isinstance(result, ProviderError) and result.kind == ErrorKind.RATE_LIMITED
    ]
    return round(max(limited, default=0.0) * 1000)


def _refused(found: dict[str, Any]) -> Refused:
    # History was taken a moment ago, and Redis lost it again.
    refusal = Refusal.SETTLING if found["reason"] == "history" else Refusal(found["reason"])
    used_up = Limit(found["limit"], found["window"] / 1000) if "window" in found else None
    return Refused(
        refusal,
        _reason(refusal, in_words(used_up) if used_up else ""),
        retry_after_s=max(found["wait"], 0) / 1000,
        window_s=used_up.window_s if used_up else None,
    )


def _reason(refusal: Refusal, used_up: str) -> str:
    match refusal:
        case Refusal.BUDGET:
            return f"budget: used up ({used_up})"
        case Refusal.LATEST_SHARE:
            return f"budget: the part for GET latest and fallbacks is used up ({used_up})"
        case Refusal.HELD:
            return "rate limited: the provider asked to wait"
        case Refusal.BROKEN:
            return "broken: the provider did not work when it was last asked"
        case _:
            return "budget: its counts are being restored"
