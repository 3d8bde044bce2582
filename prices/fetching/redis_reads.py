"""Redis for calls that are answered from it: a connection for each thread, and a rest after a failure."""

import functools
import threading
import time
from collections.abc import Sequence
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from providers.rate_limits.redis_errors import redis_problem
from providers.rate_limits.redis_scripts import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, SharedStateError

# One that hangs costs each caller ANSWER_TIMEOUT_S, so it is not asked again for so long.
AWAY_FOR_S = 1.0

_threads = threading.local()
# By the monotonic clock.
_away_until: dict[str, float] = {}


def read_values(keys: Sequence[str]) -> list[bytes | None]:
    """Return what lies under the keys. Raises SharedStateError where Redis is away, or was a moment ago."""
    if time.monotonic() < _away_until.get(settings.REDIS_URL, 0):
        raise SharedStateError("Redis did not answer a moment ago")
    try:
        return _read(keys)
    except redis.RedisError as error:
        _away_until[settings.REDIS_URL] = time.monotonic() + AWAY_FOR_S
        raise SharedStateError(f"Redis {redis_problem(error)}") from error


@functools.cache
def prepared_script(url: str, script: str) -> Script:
    """Return a script to be called with keys and arguments."""
    return redis_client(url).register_script(script)


@functools.cache
def redis_client(url: str) -> redis.Redis:
    """Return the client of this process; it tries nothing twice."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def _read(keys: Sequence[str]) -> list[bytes | None]:
    """Return what lies under the keys, by a connection of this thread's own.

    The pool of redis-py takes half as long as the rest of the call.
    """
    opened = getattr(_threads, settings.REDIS_URL, None)
    if opened is None:
        opened = redis_client(settings.REDIS_URL).connection_pool.make_connection()
        setattr(_threads, settings.REDIS_URL, opened)
    try:
        return _ask(opened, keys)
    except redis.ConnectionError:
        # Redis may have closed it since the last call: the next one is a new one.
        return _ask(opened, keys)


def _ask(opened: Any, keys: Sequence[str]) -> list[bytes | None]:
    try:
        opened.send_command("MGET", *keys)
        values: list[bytes | None] = opened.read_response()
    except redis.RedisError:
        # Half of an answer may be under way.
        opened.disconnect()
        raise
    return values
