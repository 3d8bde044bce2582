"""Permits: before a request goes out, its provider's breaker and budget are asked, in one round trip.

Each permit is for one request, and what became of that is reported, in one round trip more. What an adapter
sends besides (providers/rate_limits/outgoing.py) is counted by the same permit, each request for itself.
"""

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import structlog

from providers.base import ErrorKind, ProviderError, Quote, RawAnswer, Results, refuses_this_request
from providers.keys import UNMETERED
from providers.rate_limits.breaker import BREAKER_LUA, breaker_outcome
from providers.rate_limits.budget import BUDGET_LUA, LoadHistory, budget_question, limits_of, restore
from providers.rate_limits.limits import Limit, in_words, unknown_limit, usage_from_headers
from providers.rate_limits.redis_scripts import SharedStateError, call_script

log = structlog.get_logger(__name__)

# "job": what the planner shares out (prices/quota). "latest": calls of GET latest, and polls that fall back.
Caller = Literal["job", "latest"]

# A provider that refuses and does not say for how long: Finnhub counts by the minute.
DEFAULT_HOLD_S = 60.0

# What an answer comes to that has several errors and no quote: the most telling kind.
_BY_WEIGHT = (
    ErrorKind.RATE_LIMITED,
    ErrorKind.INVALID_KEY,
    ErrorKind.UPSTREAM_ERROR,
    ErrorKind.MALFORMED,
    ErrorKind.NOT_ENTITLED,
    ErrorKind.UNKNOWN_SYMBOL,
)

_with_unknown_limit: set[str] = set()

_REQUEST = (
    BUDGET_LUA
    + BREAKER_LUA
    + """
local function refusal()
  if #ask.limits > 0 and not is_complete() then
    local wait = left(settling)
    return {reason = wait > 0 and 'settling' or 'history', wait = wait}
  end
  local held = left(hold)
  if held > 0 then return {reason = 'held', wait = held} end
  local broken = breaker_wait()
  if broken > 0 then
    return {reason = 'broken', wait = broken, last_error = redis.call('HGET', breaker, 'last_error')}
  end
  return budget_refusal()
end

local refused = refusal()
if refused then return cjson.encode(refused) end
count_request(now + ask.under_way)
note_probe()
return '{}'
"""
)

# The entry of the request is counted anew, as of its answer.
_REPORT = (
    BUDGET_LUA
    + BREAKER_LUA
    + """
count_request(now)
if ask.usage and is_complete() then correct(ask.usage) end
if ask.hold > 0 then hold_for(ask.hold) end
if ask.outcome then note_outcome(ask.outcome) end
return '{}'
"""
)

# A further request under the same permit: neither the breaker nor history is asked again.
_COUNT_ANOTHER = (
    BUDGET_LUA
    + """
local refused = budget_refusal()
if refused then return cjson.encode(refused) end
count_request(now + ask.under_way)
return '{}'
"""
)

_REPORT_END = BUDGET_LUA + "count_request(now) return '{}'"

_GIVE_BACK = """
redis.call('ZREM', sent, ask.entry)
redis.call('ZREM', latest, ask.entry)
return '{}'
"""

_GIVE_PROBE_BACK = BREAKER_LUA + "give_probe_back() return '{}'"

_WAIT_FOR_SEVERAL = BUDGET_LUA + "return cjson.encode({wait = wait_for_several(ask.more)})"


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
    """Return whether the provider's requests are counted: all that go over a network are."""
    return provider not in UNMETERED


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
    permit: Granted,
    results: Results,
    *,
    answer: RawAnswer | None,
    entry: str | None = None,
    is_superseded: bool = False,
) -> None:
    """Tell what became of a request: its results, and its answer if there was one.

    `entry` is the id under which the last request of the permit was counted, by default the permit's own.
    `is_superseded`: other calls of the provider take the place of this one (Yahoo's chart after a refused
    quote), so that its refusal says nothing of the provider's health. Never raises where Redis is away: the
    request then counts as under way until its time-out is over.
    """
    _run(
        _REPORT,
        permit,
        {"entry": entry or permit.request_id} | _report(permit, results, answer, is_superseded),
    )


def count_another(permit: Granted, entry: str) -> Refused | None:
    """Count one more request of a permit, under an id of its own; return why it may not go out."""
    return _ask_or_refused(_COUNT_ANOTHER, permit, {"entry": entry})


def report_end(permit: Granted, entry: str) -> None:
    """Report that a request of the permit is no longer under way; never raises, as `report_outcome`."""
    _run(_REPORT_END, permit, {"entry": entry})


def give_back(permit: Granted, entry: str) -> None:
    """Report that a request of the permit was counted and did not go out; never raises."""
    _run(_GIVE_BACK, permit, {"entry": entry})


def give_probe_back(permit: Granted) -> None:
    """Report that the permit ends without a word on the provider; never raises.

    Where it was for the probe of an open breaker, another request may be that.
    """
    _run(_GIVE_PROBE_BACK, permit, {})


def wait_for_several(permit: Granted, more: int) -> float:
    """Return the seconds until `more` requests can have gone out one after the other, if nobody else asks.

    Never too few; infinite where Redis is away.
    """
    if not is_metered(permit.provider):
        return 0.0
    try:
        found = call_script(_WAIT_FOR_SEVERAL, permit.provider, _question(permit) | {"more": more})
    except SharedStateError:
        return math.inf
    return float(found["wait"]) / 1000


def outcome_kind(results: Results) -> ErrorKind | None:
    """Return None where there is a quote among the results, else the most telling kind of their errors."""
    if any(isinstance(result, Quote) for result in results.values()):
        return None
    kinds = {result.kind for result in results.values() if isinstance(result, ProviderError)}
    return next((kind for kind in _BY_WEIGHT if kind in kinds), None)


def _ask(permit: Granted) -> dict[str, Any]:
    found: dict[str, Any] = call_script(_REQUEST, permit.provider, _question(permit))
    return found


def _ask_or_refused(script: str, permit: Granted, more: Mapping[str, Any]) -> Refused | None:
    if not is_metered(permit.provider):
        return None
    try:
        found = call_script(script, permit.provider, {**_question(permit), **more})
    except SharedStateError as error:
        return Refused(Refusal.UNAVAILABLE, f"budget unavailable: {error}")
    return _refused(found) if found else None


def _run(script: str, permit: Granted, what: Mapping[str, Any]) -> None:
    if not is_metered(permit.provider):
        return
    try:
        call_script(script, permit.provider, {**_question(permit), **what})
    except SharedStateError as error:
        log.warning("permit.not_reported", provider=permit.provider, reason=str(error))


def _question(permit: Granted) -> dict[str, Any]:
    ours = {"id": permit.request_id, "entry": permit.request_id, "caller": permit.caller}
    return budget_question(limits_of(permit.provider)) | ours


def _report(
    permit: Granted, results: Results, answer: RawAnswer | None, is_superseded: bool
) -> dict[str, Any]:
    report: dict[str, Any] = {"hold": 0}
    if not is_superseded:
        report["hold"] = _hold_ms(permit.provider, results)
        report["outcome"] = breaker_outcome(outcome_kind(results), works=refuses_this_request(answer))
    # From 500 on the headers are those of whatever stands before the provider.
    if answer is not None and answer.status < 500:
        limits = limits_of(permit.provider)
        _note_unknown_limit(permit.provider, unknown_limit(limits, answer.headers))
        usage = usage_from_headers(limits, answer.headers, answer.received_at)
        report |= {"usage": usage} if usage else {}
    return report


def _note_unknown_limit(provider: str, requests: int | None) -> None:
    # Once: it stands in every answer.
    if requests is not None and provider not in _with_unknown_limit:
        _with_unknown_limit.add(provider)
        budget = ",".join(map(str, limits_of(provider)))
        log.warning("budget.unknown_limit", provider=provider, named_limit=requests, budget=budget)


def _hold_ms(provider: str, results: Results) -> int:
    limited = {
        DEFAULT_HOLD_S if result.retry_after is None else result.retry_after: result.message
        for result in results.values()
        if isinstance(result, ProviderError) and result.kind == ErrorKind.RATE_LIMITED
    }
    if not limited:
        return 0
    hold_s = max(limited)
    log.warning("provider.held", provider=provider, hold_s=round(hold_s, 1), reason=limited[hold_s])
    return round(hold_s * 1000)


def _refused(found: dict[str, Any]) -> Refused:
    # History was taken a moment ago, and Redis lost it again.
    refusal = Refusal.SETTLING if found["reason"] == "history" else Refusal(found["reason"])
    used_up = Limit(found["limit"], found["window"] / 1000) if "window" in found else None
    return Refused(
        refusal,
        _reason(refusal, in_words(used_up) if used_up else "", last_error=found.get("last_error")),
        retry_after_s=max(found["wait"], 0) / 1000,
        window_s=used_up.window_s if used_up else None,
    )


def _reason(refusal: Refusal, used_up: str, *, last_error: str | None) -> str:
    match refusal:
        case Refusal.BUDGET:
            return f"budget: used up ({used_up})"
        case Refusal.LATEST_SHARE:
            return f"budget: the part for GET latest and fallbacks is used up ({used_up})"
        case Refusal.HELD:
            return "rate limited: the provider refused for its limit, and is not asked until that is over"
        case Refusal.BROKEN if last_error == ErrorKind.INVALID_KEY:
            return "broken: the provider refused the key when it was last asked"
        case Refusal.BROKEN:
            return "broken: the provider did not work when it was last asked"
        case _:
            return "budget: its counts are being restored"
