"""What all processes know of a provider together, in Redis: the client, the names of keys, the scripts.

Each key names the provider and the scope that it meters: a hash of the API key, never the key itself.
Scripts run whole or not at all, and tell the time by the server's clock.

SharedStateError        Redis does not do what was asked; its message says why
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from providers.registry import key_setting

CONNECT_TIMEOUT_S = 0.4
ANSWER_TIMEOUT_S = 0.8
PREFIX = "marketdata"

_CANNOT_WRITE = ("MISCONF", "NOREPLICAS")

# Every script begins so. Times are whole milliseconds.
_BEGINNING = """
local sent, latest, hold, settling, breaker = unpack(KEYS)
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_NAMES = ("sent", "latest", "hold", "settling", "breaker")


class SharedStateError(Exception):
    """Redis cannot be reached, or takes no writes."""


def call_script(script: str, provider: str, ask: Mapping[str, Any]) -> Any:
    """Run a Lua script on the provider's keys, in one round trip; give the JSON that it returns.

    The script finds the provider's keys as `sent`, `latest`, `hold`, `settling` and `breaker`, what is
    asked as `ask`, and the server's time in ms as `now`. Raises SharedStateError within two seconds.
    """
    try:
        return json.loads(_prepared(settings.REDIS_URL, script)(keys_of(provider), [json.dumps(ask)]))
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise SharedStateError("Redis cannot be reached") from error
    except redis.ResponseError as error:
        if isinstance(error, redis.ReadOnlyError | redis.OutOfMemoryError) or _cannot_write(error):
            raise SharedStateError("Redis takes no writes") from error
        raise


def keys_of(provider: str) -> list[str]:
    """Give the names of the provider's keys, for the API key that is set now."""
    return [f"{key_base(provider)}:{name}" for name in _NAMES]


def key_base(provider: str) -> str:
    """Give what all names of the provider's keys begin with."""
    return f"{PREFIX}:{provider}:{_scope(provider)}"


def under_way_ms() -> int:
    """Give how long a request may be under way before its process must have died: more than its time-out."""
    return int(settings.PROVIDER_TIMEOUT_S * 1500)


def _scope(provider: str) -> str:
    setting = key_setting(provider)
    if setting is None:
        return "address"
    return hashlib.sha256(f"{setting}={getattr(settings, setting)}".encode()).hexdigest()[:16]


def _cannot_write(error: redis.ResponseError) -> bool:
    return str(error).startswith(_CANNOT_WRITE)


@functools.cache
def _prepared(url: str, script: str) -> Script:
    return _client(url).register_script(_BEGINNING + script)


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
