"""Redis for calls that wait for it: a connection for each thread, and a rest after a failure."""

import functools
import hashlib
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
    values: list[bytes | None] = _call("MGET", *keys)
    return values


def run_script(script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
    """Return what a Lua script returns. Raises SharedStateError where Redis is away, or was a moment ago."""
    ask = (len(keys), *keys, *arguments)
    try:
        return _call("EVALSHA", _digest(script), *ask)
    except redis.exceptions.NoScriptError:
        # This Redis has not seen it yet.
        return _call("EVAL", script, *ask)


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


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _call(*command: str | int) -> Any:
    if time.monotonic() < _away_until.get(settings.REDIS_URL, 0):
        raise SharedStateError("Redis did not answer a moment ago")
    try:
        return _ask_here(*command)
    except redis.exceptions.NoScriptError:
        raise
    except redis.ResponseError as error:
        # It is there, and refuses this: the next call may be one that it does not refuse.
        raise SharedStateError(f"Redis {redis_problem(error)}") from error
    except redis.RedisError as error:
        _away_until[settings.REDIS_URL] = time.monotonic() + AWAY_FOR_S
        raise SharedStateError(f"Redis {redis_problem(error)}") from error


def _ask_here(*command: str | int) -> Any:
    """Ask by a connection of this thread's own: the pool of redis-py takes half as long as all else."""
    opened = getattr(_threads, settings.REDIS_URL, None)
    if opened is None:
        opened = redis_client(settings.REDIS_URL).connection_pool.make_connection()
        setattr(_threads, settings.REDIS_URL, opened)
    try:
        return _ask(opened, *command)
    except redis.ConnectionError:
        # Redis may have closed it since the last call: the next one is a new one.
        return _ask(opened, *command)


def _ask(opened: Any, *command: str | int) -> Any:
    try:
        opened.send_command(*command)
        return opened.read_response()
    except redis.ResponseError:
        # A whole answer.
        raise
    except redis.RedisError:
        # Half of an answer may be under way.
        opened.disconnect()
        raise
