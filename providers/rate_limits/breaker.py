"""Circuit breakers: a provider that does not work is left alone, by all processes together.

closed     requests go out; BREAKER_FAILURES failures in a row open it
open       nothing goes out until the cool-down is over: 1 s, then twice as long each time
half_open  one request, the probe, may go out; its answer closes the breaker, its failure opens it again

What counts as a failure: the provider does not answer (upstream_error, time-outs included), or refuses
the key, which opens it at once. Any other answer comes from a provider that works: a wrong symbol (also
where HTTP 400, 404 or 422 says so), a plan that lacks it, one body that cannot be read must not stop the
polls of other symbols, and a limit of requests is the budget's affair.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from django.conf import settings

from providers.base import ErrorKind
from providers.rate_limits.redis_scripts import call_script

FIRST_COOLDOWN_S = 1

# Not about the provider but about one symbol.
_ABOUT_A_SYMBOL = frozenset({ErrorKind.UNKNOWN_SYMBOL, ErrorKind.NOT_ENTITLED})

_KEPT_MS = 30 * 86_400_000
# The longest that BREAKER_MAX_COOLDOWN_S can be.
_LONGEST_MS = 3_600_000
_NUMBERS = ("retry_at", "waits", "times_opened", "failures", "since", "last_success", "last_error_at")

BREAKER_LUA = f"""
local function is_one_of(words, value)
  return string.find(value, '^[%l_]+$') and string.find(words, ' ' .. value .. ' ', 1, true) ~= nil
end

local function is_ours(field, value)
  if field == 'state' then return is_one_of(' open closed ', value) end
  if field == 'last_error' then return is_one_of(' {" ".join(ErrorKind)} ', value) end
  if field == 'probe' then return #value == 32 and string.find(value, '^%x+$') ~= nil end
  if field == 'waits' then return is_number(value) and tonumber(value) <= {_LONGEST_MS} end
  return is_one_of(' {" ".join(_NUMBERS)} ', field) and is_number(value)
end

local fields = redis.call('HGETALL', breaker)
for i = 1, #fields, 2 do
  if not is_ours(fields[i], fields[i + 1]) then
    redis.call('HDEL', breaker, fields[i])
    note_garbage(breaker .. ' ' .. string.gsub(string.sub(fields[i], 1, 60), '[^%w_]', '?'))
  end
end

local function is_open()
  return redis.call('HGET', breaker, 'state') == 'open'
end

local function wait_for(wait)
  redis.call('HSET', breaker, 'retry_at', now + wait, 'waits', wait)
end

-- Until a probe may go out; while one is under way, until it must have been answered.
local function breaker_wait()
  if not is_open() then return 0 end
  local wait = tonumber(redis.call('HGET', breaker, 'retry_at') or 0) - now
  local longest = tonumber(redis.call('HGET', breaker, 'waits') or 0)
  if wait > longest then
    -- This clock was ahead, and is set back since.
    wait_for(longest)
    wait = longest
  end
  return math.max(wait, 0)
end

-- Should the probe's process be killed, the next one goes out once this one must have been answered.
local function note_probe()
  if not is_open() then return end
  redis.call('HSET', breaker, 'probe', ask.id)
  wait_for(ask.under_way)
end

-- The probe did not go out: another request may.
local function give_probe_back()
  if redis.call('HGET', breaker, 'probe') ~= ask.id then return end
  redis.call('HDEL', breaker, 'probe')
  wait_for(0)
end

local function open_breaker(outcome)
  local times = redis.call('HINCRBY', breaker, 'times_opened', 1)
  local cooldown = math.min(outcome.cooldown * 2 ^ (times - 1), outcome.max_cooldown)
  redis.call('HDEL', breaker, 'probe')
  redis.call('HSET', breaker, 'state', 'open')
  wait_for(math.floor(cooldown * outcome.jitter))
end

local function close_breaker()
  redis.call('HDEL', breaker, 'probe', 'retry_at', 'waits', 'times_opened')
  redis.call('HSET', breaker, 'state', 'closed', 'since', now)
end

local function note_last(outcome)
  if outcome.is_success then redis.call('HSET', breaker, 'last_success', now) end
  if outcome.error then redis.call('HSET', breaker, 'last_error', outcome.error, 'last_error_at', now) end
  redis.call('PEXPIRE', breaker, {_KEPT_MS})
end

local function note_outcome(outcome)
  note_last(outcome)
  local was_open = is_open()
  -- What was sent before it opened, or by a probe that was given up, says nothing of now.
  if was_open and redis.call('HGET', breaker, 'probe') ~= ask.id then return end
  if outcome.opens_after == 0 then
    redis.call('HSET', breaker, 'failures', 0)
    if was_open then close_breaker() end
    return
  end
  local failures = redis.call('HINCRBY', breaker, 'failures', 1)
  if was_open then
    open_breaker(outcome)
  elseif failures >= outcome.opens_after then
    redis.call('HSET', breaker, 'since', now)
    open_breaker(outcome)
  end
end
"""

_STATE = (
    BREAKER_LUA
    + """
local found = {now = now, wait = breaker_wait()}
fields = redis.call('HGETALL', breaker)
for i = 1, #fields, 2 do found[fields[i]] = fields[i + 1] end
return cjson.encode(found)
"""
)


@dataclass(frozen=True, slots=True)
class BreakerState:
    """The breaker of a provider. Times are the server's; None where there was nothing of the kind.

    `failures` counts those in a row. `retry_after_s` is the time until the next request may go out.
    `last_error` is a kind of error that is about the provider, not about one symbol.
    """

    state: Literal["closed", "open", "half_open"]
    since: datetime | None
    failures: int
    retry_after_s: float
    last_success: datetime | None
    last_error: ErrorKind | None
    last_error_at: datetime | None


def breaker_state(provider: str) -> BreakerState:
    """Return the state of the provider's breaker; raises SharedStateError."""
    found = call_script(_STATE, provider, {})
    is_open = found.get("state") == "open"
    wait_ms = found["wait"]
    is_cooling = wait_ms > 0 and "probe" not in found
    return BreakerState(
        state="closed" if not is_open else "open" if is_cooling else "half_open",
        since=_time_of("since", found),
        failures=int(found.get("failures", 0)),
        retry_after_s=wait_ms / 1000,
        last_success=_time_of("last_success", found),
        last_error=ErrorKind(found["last_error"]) if "last_error" in found else None,
        last_error_at=_time_of("last_error_at", found),
    )


def breaker_outcome(kind: ErrorKind | None, *, works: bool = False) -> dict[str, Any]:
    """Return what `note_outcome` has to be told of a request that ended with this kind, None for a quote.

    `works`: the answer's status says that only the request was wrong.
    """
    max_cooldown_ms = 1000 * settings.BREAKER_MAX_COOLDOWN_S
    outcome: dict[str, Any] = {
        "is_success": kind is None,
        "opens_after": 0,
        "cooldown": FIRST_COOLDOWN_S * 1000,
        "max_cooldown": max_cooldown_ms,
        # Downwards only, so that the longest cool-down is what the setting says.
        "jitter": 0.5 + secrets.randbelow(501) / 1000,
    }
    if kind is not None and kind not in _ABOUT_A_SYMBOL:
        outcome["error"] = kind
    if kind == ErrorKind.UPSTREAM_ERROR and not works:
        outcome["opens_after"] = settings.BREAKER_FAILURES
    if kind == ErrorKind.INVALID_KEY:
        outcome |= {"opens_after": 1, "cooldown": max_cooldown_ms}
    return outcome


def _time_of(name: str, found: Mapping[str, Any]) -> datetime | None:
    """Return a time of the breaker; one of a clock that was ahead counts as now."""
    if name not in found:
        return None
    return datetime.fromtimestamp(min(int(found[name]), found["now"]) / 1000, tz=UTC)
