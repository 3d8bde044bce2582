"""Messages that nobody needs any more, in the queue of a provider whose workers do not run.

Nobody takes them there, and Redis, in which the budgets of all providers are, would fill up. A worker that
takes one claims the slot of that moment, or finds it claimed. Celery's own `expires` is not used: a worker
compares it with its own clock, and one that is a little ahead would drop every message, without a word.
"""

import json
from datetime import datetime
from typing import cast

import redis
import structlog
from django.conf import settings

from prices.database.uuid7 import CLOCKS_AGREE_WITHIN
from prices.jobs.services import queue_of
from providers.rate_limits.redis_errors import redis_problem
from providers.registry import PROVIDER_NAMES

log = structlog.get_logger(__name__)

_HEADER = "needless_after"
READ_AT_ONCE = 200
TIMEOUT_S = 2.0


def drop_expired_messages(*, now: datetime) -> int:
    """Take out of the providers' queues what was needed until a minute ago; return how many that were.

    What Redis does not do just now is told in the log, and left to the next time.
    """
    dropped = 0
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT_S) as broker:
            for queue in map(queue_of, PROVIDER_NAMES):
                dropped += _drop_from(broker, queue, before=now - CLOCKS_AGREE_WITHIN)
    except redis.RedisError as error:
        log.warning("messages.not_dropped", reason=f"Redis {redis_problem(error)}")
    if dropped:
        log.warning("messages.dropped", count=dropped, reason="no worker took them in time")
    return dropped


def _drop_from(broker: redis.Redis, queue: str, *, before: datetime) -> int:
    # The oldest are at the end.
    end, dropped = -1, 0
    while messages := cast(list[bytes], broker.lrange(queue, end - READ_AT_ONCE + 1, end)):
        expired = [message for message in messages if _is_needless(message, before)]
        for message in expired:
            # By its value: a worker may take it at this moment, and then none is taken in its place.
            dropped += broker.lrem(queue, -1, message)  # type: ignore[arg-type]  # bytes will do
        end -= len(messages) - len(expired)
    return dropped


def needless_after(moment_s: float) -> dict[str, float]:
    """Return the header of a message that nobody needs after this time, in s since the epoch."""
    return {_HEADER: moment_s}


def _is_needless(message: bytes, before: datetime) -> bool:
    # One that was sent by hand, such as by the admin's "run selected tasks", has no such time of ours.
    try:
        headers = json.loads(message)["headers"]
        ours, celerys = headers.get(_HEADER), headers["expires"]
        if ours is None:
            return celerys is not None and datetime.fromisoformat(celerys) < before
        # One that is no number (NaN) is never reached, so it is over.
        return not float(ours) >= before.timestamp()
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        # No message: nobody can do anything with it.
        return True
