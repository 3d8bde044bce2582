"""Request budgets: how many requests a provider still takes, counted for all processes together.

Each request is one entry of a sliding log. An entry's time is the last moment at which the request may
have reached the provider: while it is under way, the end of its time-out; afterwards, when its answer
came. So no window of the provider's holds more than a limit allows, however long requests travel.
"""

import heapq
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.conf import settings

from providers.rate_limits.limits import Limit, parse_limits
from providers.rate_limits.redis_scripts import call_script, under_way_ms

log = structlog.get_logger(__name__)

DAY_S = 86_400

# Redis loses logs as a whole only together with the mark that they are complete: the mark is an entry, at
# time 0. It names the server's run, so after each restart the counts are compared with what was stored.
BUDGET_LUA = """
local mark = 'complete:' .. string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')

-- No request is counted for a later time, unless this clock was set back since.
local time_to_come = now + ask.under_way + 5000

-- By a clock that was ahead requests were counted for a time to come, and those of a day forgotten.
local function is_complete()
  return redis.call('ZSCORE', sent, mark) ~= false and redis.call('ZCOUNT', sent, time_to_come, '+inf') == 0
end

-- Until a window has room for one more, should all that is under way be answered now; 0: it has room.
local function wait_ms(requests, limit, window)
  if limit == 0 then return window end
  local nth = tonumber(redis.call('ZREVRANGE', requests, limit - 1, limit - 1, 'WITHSCORES')[2] or 0)
  if nth < now - window then return 0 end
  return math.min(nth, now) + window + 1 - now
end

-- The same for what jobs may use of it; at least so long, should the oldest request be one of theirs.
local function jobs_wait_ms(rule)
  local from = now - rule.window
  local used = redis.call('ZCOUNT', sent, from, '+inf') - redis.call('ZCOUNT', latest, from, '+inf')
  if used < rule.limit - rule.share then return 0 end
  local oldest = redis.call('ZRANGEBYSCORE', sent, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return oldest and math.min(tonumber(oldest), now) + rule.window + 1 - now or rule.window
end

local function budget_refusal()
  local refusal = {wait = 0}
  local function consider(reason, wait, limit, window)
    if wait > refusal.wait then
      refusal = {reason = reason, wait = wait, limit = limit, window = window}
    end
  end
  for _, rule in ipairs(ask.limits) do
    consider('budget', wait_ms(sent, rule.limit, rule.window), rule.limit, rule.window)
    if rule.share and ask.caller == 'latest' then
      consider('latest_share', wait_ms(latest, rule.share, rule.window), rule.share, rule.window)
    elseif rule.share then
      consider('budget', jobs_wait_ms(rule), rule.limit - rule.share, rule.window)
    end
  end
  return refusal.reason and refusal
end

local function write_entry(requests, id, at)
  redis.call('ZREMRANGEBYSCORE', requests, 1, now - ask.longest - 1)
  redis.call('ZADD', requests, at, id)
  redis.call('PEXPIRE', requests, ask.longest + ask.under_way + 86400000)
end

local function count_request(at)
  if #ask.limits == 0 then return end
  write_entry(sent, ask.entry, at)
  if ask.caller == 'latest' then write_entry(latest, ask.entry, at) end
end

-- Until the last of so many, one after the other, can go out beside the one that is counted as ask.entry.
local function wait_for_several(more)
  local longest = 0
  local function consider(requests, limit, window)
    local wait
    if limit > more then
      wait = wait_ms(requests, limit - more + 1, window)
    else
      local is_shared = redis.call('ZCOUNT', requests, now - window, '+inf') > 1
      wait = (limit > 0 and math.floor(more / limit) or more + 1) * window + (is_shared and window or 0)
    end
    longest = math.max(longest, wait)
  end
  for _, rule in ipairs(ask.limits) do
    local is_latest = ask.caller == 'latest'
    consider(sent, rule.limit - (not is_latest and rule.share or 0), rule.window)
    if rule.share and is_latest then consider(latest, rule.share, rule.window) end
  end
  return longest
end

local function hold_for(wait)
  if wait > left(hold) then keep_for(hold, wait) end
end

-- Someone else uses the key too: entries stand for their requests, until the provider's window ends.
local function correct(usage)
  local missing = usage.used - redis.call('ZCOUNT', sent, now - usage.window, '+inf')
  for i = 1, missing do
    write_entry(sent, 'reported:' .. ask.id .. ':' .. i, now - usage.window + usage.resets_in)
  end
end
"""

# However often and by however many processes it runs, nothing is added twice: since any moment, a log has at
# least as many answered requests as history. What is under way stands for nothing that was answered.
_RESTORE = (
    BUDGET_LUA
    + """
local newest = 0
local function add_missing(requests, times)
  for i, at in ipairs(times) do
    at = math.min(at, now)
    if redis.call('ZCOUNT', requests, at, now) < i then
      write_entry(requests, 'past:' .. ask.id .. ':' .. i, at)
      newest = math.max(newest, at)
    end
  end
end

local function count_as_of_now(requests)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', requests, time_to_come, '+inf')) do
    redis.call('ZADD', requests, now, id)
  end
end

local was_complete = is_complete()
if not was_complete then
  redis.call('ZREM', sent, mark)
  count_as_of_now(sent)
  count_as_of_now(latest)
end
add_missing(sent, ask.all_times)
add_missing(latest, ask.latest_times)
-- Requests went out just before the counts were lost: others may be under way, in no log and no history.
local wait = newest + ask.under_way - now
if wait > 0 and not was_complete then
  keep_for(settling, wait)
  return cjson.encode({complete = false, wait = wait})
end
redis.call('ZREMRANGEBYSCORE', sent, 0, 0)
redis.call('ZADD', sent, 0, mark)
redis.call('PEXPIRE', sent, ask.longest + ask.under_way + 86400000)
return cjson.encode({complete = true, wait = 0})
"""
)

_REMAINING = (
    BUDGET_LUA
    + """
local windows = {}
for i, rule in ipairs(ask.limits) do
  local from = now - rule.window
  local oldest = redis.call('ZRANGEBYSCORE', sent, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  windows[i] = {
    used = redis.call('ZCOUNT', sent, from, '+inf'),
    by_latest = redis.call('ZCOUNT', latest, from, '+inf'),
    resets_in = oldest and math.min(tonumber(oldest), time_to_come) + rule.window + 1 - now or 0,
  }
end
return cjson.encode({
  complete = #ask.limits == 0 or is_complete(),
  windows = windows,
  held = left(hold),
})
"""
)


@dataclass(frozen=True, slots=True)
class SentTimes:
    """When past requests were sent, or rather when their answers came: for jobs, and for GET latest."""

    job: Iterable[datetime]
    latest: Iterable[datetime]


# Of (provider, seconds): the requests of the last so many seconds by what was stored.
LoadHistory = Callable[[str, float], SentTimes]


@dataclass(frozen=True, slots=True)
class WindowUse:
    """One limit and how much of it is used; `by_latest` of that by GET latest and fallbacks of jobs.

    `resets_in_s`: until the oldest request leaves the window.
    """

    limit: int
    window_s: float
    used: int
    by_latest: int
    left: int
    resets_in_s: float


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a provider's budget.

    `windows` is None while the counts are not known: Redis lost them, and nobody has asked for a
    permit since. `held_for_s`: nothing is sent for so long, because the provider asked for it.
    """

    windows: tuple[WindowUse, ...] | None
    held_for_s: float


def limits_of(provider: str) -> tuple[Limit, ...]:
    """Return the provider's limits, by the setting PROVIDER_BUDGETS. Raises ValueError if it is no budget."""
    return parse_limits(settings.PROVIDER_BUDGETS[provider])


def reserved_for_latest(limit: Limit) -> int:
    """Return the requests of a window that GET latest may use: of a day's or longer a share, else none."""
    if limit.window_s < DAY_S:
        return 0
    return limit.requests * int(settings.LATEST_BUDGET_SHARE_PERCENT) // 100


def remaining(provider: str) -> Remaining:
    """Return what is left of the provider's budget; raises SharedStateError."""
    limits = limits_of(provider)
    found = call_script(_REMAINING, provider, budget_question(limits))
    held_for_s = found["held"] / 1000
    if not found["complete"]:
        return Remaining(None, held_for_s)
    uses = zip(limits, found["windows"], strict=True)
    return Remaining(tuple(_window_use(limit, use) for limit, use in uses), held_for_s)


def restore(provider: str, times: SentTimes) -> bool:
    """Take counts from past requests; say whether they are complete, so that permits can be given.

    They are not where requests may be under way that history does not know yet: the next permit is
    refused until they are answered, and then history is needed once more. Any number of processes
    may restore at once, and again. Raises SharedStateError.
    """
    limits = limits_of(provider)
    by_job, by_latest = _milliseconds(times.job), _milliseconds(times.latest)
    most = max((limit.requests for limit in limits), default=0)
    past = {
        "id": uuid.uuid4().hex,
        "all_times": heapq.nlargest(most, by_job + by_latest),
        "latest_times": heapq.nlargest(most, by_latest),
    }
    found = call_script(_RESTORE, provider, budget_question(limits) | past)
    log.info(
        "budget.restored" if found["complete"] else "budget.settling",
        provider=provider,
        requests=len(by_job) + len(by_latest),
        wait_s=found["wait"] / 1000,
    )
    return bool(found["complete"])


def budget_question(limits: tuple[Limit, ...]) -> dict[str, Any]:
    """Return what a script with BUDGET_LUA has to be asked with."""
    return {
        "limits": [_rule(limit) for limit in limits],
        "longest": max((limit.window_ms for limit in limits), default=0),
        "under_way": under_way_ms(),
    }


def _rule(limit: Limit) -> dict[str, int]:
    rule = {"limit": limit.requests, "window": limit.window_ms}
    if limit.window_s >= DAY_S:
        rule["share"] = reserved_for_latest(limit)
    return rule


def _window_use(limit: Limit, use: Mapping[str, float]) -> WindowUse:
    used = int(use["used"])
    return WindowUse(
        limit=limit.requests,
        window_s=limit.window_s,
        used=used,
        by_latest=int(use["by_latest"]),
        left=max(limit.requests - used, 0),
        # The server's clock goes by milliseconds, an entry's by less.
        resets_in_s=min(use["resets_in"] / 1000, limit.window_s),
    )


def _milliseconds(times: Iterable[datetime]) -> list[int]:
    # Rounded down, as the server's time is: what came in one millisecond is one entry, not two.
    return [int(moment.timestamp() * 1000) for moment in times]
