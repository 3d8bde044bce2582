"""How many requests of a caller are answered: no window of the limit's length holds more than it says.

Counted in Redis by one script for all processes, so that it is exact however many come at once. The times of
the requests that were let through are kept, at most as many as the limit: what is refused counts for nothing.
Without Redis all are let through, as prices are read from the table then.
"""

import math
from dataclasses import dataclass
from functools import cache

import structlog
from django.conf import settings

from prices.access.generation import new_generation
from prices.outage_log import Outage
from providers.rate_limits.limits import Limit, parse_limits
from providers.rate_limits.redis_calls import run_script
from providers.rate_limits.redis_scripts import SharedStateError

log = structlog.get_logger(__name__)

PREFIX = "marketdata:requests"
_outage = Outage(began="throttle.not_counted", ended="throttle.counted_again")

# Answers the generation of keys where that is asked for, and begins one where there is none; whether the
# request is let through, how many more would be, and in how many ms there is room for one more; and the names
# of what was deleted because no script wrote it.
_TAKE = """
local key, most, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local garbage = {}

-- When a request was let through, -1 the oldest one; nil where there is none.
local function time_of(index)
  local found = redis.pcall('LINDEX', key, index)
  if not found then return nil end
  -- An error is a table: there is something else than a list.
  if type(found) ~= 'string' or #found > 15 or not string.find(found, '^%d+$') then
    redis.call('DEL', key)
    table.insert(garbage, key)
    return nil
  end
  return tonumber(found)
end

local generation = KEYS[2] and redis.pcall('GET', KEYS[2])
if KEYS[2] and (type(generation) ~= 'string' or generation == '') then
  if generation then table.insert(garbage, KEYS[2]) end
  generation = ARGV[3]
  redis.call('SET', KEYS[2], generation)
end
if most == 0 then return {generation or '', 1, 0, 0, unpack(garbage)} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = time_of(-1)
-- One of the future was written before the clock was set back.
while oldest and (oldest <= now - window or oldest > now) do
  redis.call('RPOP', key)
  oldest = time_of(-1)
end
local count = redis.call('LLEN', key)
local is_let_through = count < most
if is_let_through then
  redis.call('LPUSH', key, now)
  redis.call('PEXPIRE', key, window)
  count = count + 1
end
-- More than the limit were let through before it was lowered: all but the newest have to leave.
local leaves = time_of(count > most and most - 1 or -1) or now
local left = math.max(most - count, 0)
return {generation or '', is_let_through and 1 or 0, left, leaves + window - now, unpack(garbage)}
"""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller has left after a request: how many, and after how many seconds one more."""

    name: str
    limit: Limit
    left: int
    more_in_s: float

    @property
    def headers(self) -> dict[str, str]:
        """Return what tells a client so (draft-ietf-httpapi-ratelimit-headers)."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.limit.requests};w={math.ceil(self.limit.window_s)}',
            "RateLimit": f'"{self.name}";r={self.left};t={math.ceil(self.more_in_s)}',
        }


@dataclass(frozen=True, slots=True)
class Counted:
    """What a caller has left, None where there is no limit; the generation of keys, where it was asked for.

    Where Redis cannot be asked there is neither.
    """

    allowance: Allowance | None = None
    generation: bytes = b""


class ThrottledError(Exception):
    """The caller has sent as many requests as are answered; `allowance` says when the next one is."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(allowance.name)
        self.allowance = allowance


def count_request(name: str, caller: str, rule: str, *, generation_key: str | None = None) -> Counted:
    """Count a request of a caller under a limit, whose name clients are told, and return what is left.

    `generation_key`: where the generation of keys lies, which is read in the same trip. Raises ThrottledError
    where the request is one too many.
    """
    limit = _limit(rule)
    limits = (0, 0) if limit is None else (limit.requests, limit.window_ms)
    keys = [f"{PREFIX}:{name}:{caller}", *([generation_key] if generation_key else [])]
    try:
        generation, is_let_through, left, more_in_ms, *garbage = run_script(
            _TAKE, keys, [*limits, new_generation()]
        )
    except SharedStateError as error:
        _outage.begin(str(error))
        return Counted()
    _outage.end()
    if garbage:
        log.warning("redis.garbage_deleted", names=[found.decode(errors="replace") for found in garbage])
    if limit is None:
        return Counted(None, generation)
    allowance = Allowance(name, limit, left, more_in_ms / 1000)
    if not is_let_through:
        raise ThrottledError(allowance)
    return Counted(allowance, generation)


def key_rule() -> str:
    """Return the limit of each key and each user, as settings write it."""
    rule: str = settings.API_RATE
    return rule


def address_rule() -> str:
    """Return the limit of each address, of requests without a valid key."""
    rule: str = settings.API_RATE_WITHOUT_KEY
    return rule


@cache
def _limit(rule: str) -> Limit | None:
    return next(iter(parse_limits(rule)), None)
