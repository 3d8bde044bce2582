"""Messages that expired in the queue of a provider whose workers do not run.

A worker drops such a message when it takes it. Where none runs nobody takes it, and Redis, in which the
budgets of all providers are, would fill up.
"""

import json
from datetime import datetime
from typing import cast

import redis
import structlog
from django.conf import settings

from prices.ids import CLOCKS_AGREE_WITHIN
from prices.jobs import queue_of
from providers.registry import PROVIDER_NAMES

log = structlog.get_logger(__name__)

READ_AT_ONCE = 200
TIMEOUT_S = 2.0


def drop_expired_messages(*, now: datetime) -> int:
    """Take out of the providers' queues what expired over a minute ago; give how many messages that were.

    Redis being away is told in the log, and left to the next time.
    """
    dropped = 0
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, decode_responses=True, socket_timeout=TIMEOUT_S
        ) as broker:
            for queue in map(queue_of, PROVIDER_NAMES):
                dropped += _drop_from(broker, queue, before=now - CLOCKS_AGREE_WITHIN)
    except redis.RedisError as error:
        log.warning("messages.not_dropped", reason=str(error))
    if dropped:
        log.warning("messages.dropped", count=dropped, reason="no worker took them in time")
    return dropped


def _drop_from(broker: redis.Redis, queue: str, *, before: datetime) -> int:
    # The oldest are at the end.
    end, dropped = -1, 0
    while messages := cast(list[str], broker.lrange(queue, end - READ_AT_ONCE + 1, end)):
        expired = [message for message in messages if _expires(message, before)]
        for message in expired:
            # By its value: a worker may take it at this moment, and then none is taken in its place.
            dropped += broker.lrem(queue, -1, message)
        end -= len(messages) - len(expired)
    return dropped


def _expires(message: str, before: datetime) -> bool:
    # One that was sent by hand, such as by the admin's "run selected tasks", has no such time.
    expires_at = json.loads(message)["headers"]["expires"]
    return expires_at is not None and datetime.fromisoformat(expires_at) < before
