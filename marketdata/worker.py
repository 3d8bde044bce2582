"""The workers' consumer: it waits for Redis, whatever Redis answers, and says so once."""

import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.consumer.consumer import CONNECTION_RETRY  # type: ignore[attr-defined]  # not in the stubs
from celery.worker.state import maybe_shutdown
from kombu.exceptions import OperationalError

from prices.heartbeat import touch_heartbeat
from prices.outage_log import Outage
from providers.rate_limits.redis_errors import redis_problem

log = structlog.get_logger(__name__)

RETRY_S = 0.5
# A BRPOP is answered each second: without an error for so long, Redis works.
WORKS_AFTER_S = 1.5
# What Celery and kombu, which take every message for one of theirs, meet in one that is none.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# Celery's own line for each try; what matters is logged below, once.
logging.getLogger(Consumer.__module__).addFilter(lambda record: CONNECTION_RETRY not in (record.args or ()))


class PatientConsumer(Consumer):
    """Takes messages, and tries again twice a second where Redis cannot be reached or answers with an error.

    Celery's own ends the process at most errors that Redis answers (READONLY, UNBLOCKED, NOPERM), and after
    a hundred tries to connect.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport = self.app.connection_for_read().transport
        of_redis = (*transport.connection_errors, *transport.channel_errors, OperationalError)
        self.connection_errors = (*of_redis, *_UNREADABLE)
        self._outage = Outage(began="worker.redis_away", ended="worker.redis_back")
        self._works: Any = None

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes."""
        conn.ensure_connection(
            self._note,
            max_retries=None,
            interval_start=RETRY_S,
            interval_step=0,
            interval_max=RETRY_S,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what takes a message; one that is no task's is dropped, or it would come again for ever."""
        take = super().create_task_handler(*args, **kwargs)

        def take_readable(message: Any) -> None:
            try:
                take(message)
            except _UNREADABLE as error:
                self._note(error)
                if not message.acknowledged:
                    message.ack()

        return take_readable

    def on_ready(self) -> None:
        """Begin to take messages."""
        super().on_ready()
        self._works = self.timer.call_after(WORKS_AFTER_S, self._outage.end)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Wait, and try again."""
        self._wait(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Give the connection up, wait, and try again."""
        super().on_connection_error_after_connected(exc)
        self._wait(exc)

    def _wait(self, error: BaseException) -> None:
        self._note(error)
        maybe_shutdown()
        time.sleep(RETRY_S)
        maybe_shutdown()

    def _note(self, error: BaseException, _interval: float = 0) -> None:
        if self._works is not None:
            self._works.cancel()
        if isinstance(error, _UNREADABLE):
            log.warning("worker.message_unreadable", reason=repr(error)[:200])
        else:
            self._outage.begin(f"Redis {redis_problem(error)}")
        # The process works, and its event loop, which says so otherwise, does not turn now.
        touch_heartbeat(self.hostname.partition("@")[0])
