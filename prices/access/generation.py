"""The generation of API keys: a random text in Redis that every revocation ends.

Whoever keeps a key that was read in a generation takes it in that one alone.
"""

import uuid

import redis
import structlog
from django.conf import settings

from prices.database.identity import database_id
from providers.rate_limits.redis_calls import redis_client
from providers.rate_limits.redis_errors import redis_problem

log = structlog.get_logger(__name__)

PREFIX = "marketdata:key-generation"


def generation_key() -> str:
    """Return under which key of Redis the generation lies."""
    return f"{PREFIX}:{database_id()}"


def new_generation() -> str:
    """Return a text that no generation has had."""
    return uuid.uuid4().hex


def end_generation() -> None:
    """Begin a new generation in all processes; where Redis is away that is logged."""
    try:
        redis_client(settings.REDIS_URL).set(generation_key(), new_generation())
    except redis.RedisError as error:
        log.warning("api_keys.generation_not_ended", reason=f"Redis {redis_problem(error)}")
