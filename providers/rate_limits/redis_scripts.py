"""What all processes know of a provider together, in Redis: the client, the names of keys, the scripts.

Each key names the provider and the scope that it meters: a hash of the API key, never the key itself.
Scripts run whole or not at all, and tell the time by the server's clock. A value that none of them wrote
(a hand changed it, another program uses the same name) is deleted where it is met, and the log says so.

SharedStateError        Redis does not do what was asked; its message says why
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from providers.keys import KEY_SETTINGS
from providers.rate_limits.redis_errors import is_script_fault, redis_problem

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 0.4
ANSWER_TIMEOUT_S = 0.8
PREFIX = "marketdata"

# Every script begins so. Times are whole milliseconds; numbers have up to 15 digits, since Lua's are doubles.
_BEGINNING = """
local sent, latest, hold, settling, breaker, batches = unpack(KEYS)
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- What was deleted because no script wrote it; a few are enough to say so.
local garbage = {}

local function note_garbage(name)
  if #garbage < 10 then table.insert(garbage, name) end
end

local function is_number(text)
  return #text <= 15 and string.find(text, '^%d+$') ~= nil
end

-- How long the key still lasts: no longer than it was made for. Redis keeps when a key ends, and where its
-- clock was ahead and is set right that lies hours away.
local function left_of(key, made_for)
  local left = redis.call('PTTL', key)
  if left > made_for then
    redis.call('PEXPIRE', key, made_for)
    left = made_for
  end
  return math.max(left, 0)
end

local function keep_for(key, wait)
  redis.call('SET', key, wait, 'PX', wait)
end

-- The same for a key that says itself what it was made for.
local function left(key)
  local made_for = redis.call('GET', key)
  if made_for and not is_number(made_for) then
    redis.call('DEL', key)
    note_garbage(key)
    made_for = false
  end
  return left_of(key, tonumber(made_for or 0))
end

local function main()
"""
# The answer, and behind it what was deleted.
_END = """
end

local answer = main()
return {answer, unpack(garbage)}
"""
_NAMES = ("sent", "latest", "hold", "settling", "breaker", "batches")


class SharedStateError(Exception):
    """Redis cannot be reached, or answers with an error: its own words are in the message."""


def call_script(script: str, provider: str, ask: Mapping[str, Any]) -> Any:
    """Run a Lua script on the provider's keys, in one round trip; return the JSON that it returns.

    The script finds the provider's keys as `sent`, `latest`, `hold`, `settling`, `breaker` and `batches`,
    what is asked as `ask`, and the server's time in ms as `now`. Raises SharedStateError within two seconds.
    """
    try:
        answer, *garbage = _prepared(settings.REDIS_URL, script)(keys_of(provider), [json.dumps(ask)])
    except redis.RedisError as error:
        if isinstance(error, redis.ResponseError) and is_script_fault(error):
            raise
        raise SharedStateError(f"Redis {redis_problem(error)}") from error
    if garbage:
        log.warning("redis.garbage_deleted", provider=provider, names=garbage)
    return json.loads(answer)


def keys_of(provider: str) -> list[str]:
    """Return the names of the provider's keys, for the API key that is set now."""
    return [f"{key_base(provider)}:{name}" for name in _NAMES]


def key_base(provider: str) -> str:
    """Return what all names of the provider's keys begin with."""
    return f"{PREFIX}:{provider}:{_scope(provider)}"


def under_way_ms() -> int:
    """Return how long a request may be under way before its process must have died, in milliseconds."""
    return int(settings.PROVIDER_TIMEOUT_S * 1500)


def _scope(provider: str) -> str:
    setting = KEY_SETTINGS.get(provider)
    if setting is None:
        return "address"
    return hashlib.sha256(f"{setting}={getattr(settings, setting)}".encode()).hexdigest()[:16]


@functools.cache
def _prepared(url: str, script: str) -> Script:
    return _client(url).register_script(_BEGINNING + script + _END)


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        # The script may have run all the same, and a second run would count its request twice.
        retry=Retry(NoBackoff(), 0),
    )
