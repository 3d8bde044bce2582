"""The broker's clock, as far as it is known: the consumer refuses ids that are far ahead of it."""

import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from prices.database.uuid7 import made_at_ms
from prices.models import PricePoint
from prices.publishing.events import MAX_AHEAD

log = structlog.get_logger(__name__)

MAX_AHEAD_MS = MAX_AHEAD // timedelta(milliseconds=1)
# Then it is asked once more, by what is sent: the broker's clock may have been set, too.
KAFKAS_CLOCK_HOLDS_S = 5.0


class KafkaClock:
    """The broker's clock, learned from the times at which the topic's messages were appended.

    A topic of producers' times says nothing of it.
    """

    def __init__(self) -> None:
        self._known_at = float("-inf")
        self._known_ms = 0
        self._is_behind = False

    def note(self, message: Message) -> None:
        """Learn from a message that Kafka has taken."""
        kind, milliseconds = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME:
            self._known_at, self._known_ms = time.monotonic(), milliseconds

    def is_early(self, point_id: UUID) -> bool:
        """Return whether the consumer would refuse a point sent now; False where that is not known."""
        return self.is_behind(made_at_ms(point_id))

    def is_behind(self, moment_ms: int) -> bool:
        """Return whether it is behind a moment by more than points may be; False where that is not known."""
        return self.is_known and moment_ms > self._known_ms + self._known_s_ago * 1000 + MAX_AHEAD_MS

    def in_time(self, points: Sequence[PricePoint]) -> list[PricePoint]:
        """Return the points that the consumer will take, as far as that is known.

        Where it was behind when it was last known, that is one alone, which tells: what is refused is kept.
        """
        if self._is_behind and not self.is_known:
            return list(points[:1])
        return [point for point in points if not self.is_early(point.id)]

    @property
    def _known_s_ago(self) -> float:
        return time.monotonic() - self._known_at

    @property
    def is_known(self) -> bool:
        """Return whether a message has told it in the last few seconds."""
        return self._known_s_ago < KAFKAS_CLOCK_HOLDS_S

    def log_change(self, *, is_behind: bool) -> None:
        """Say once in the log that points have to wait for it, and once that they need not any more.

        To be called where it is known.
        """
        was_behind, self._is_behind = self._is_behind, is_behind
        if is_behind and not was_behind:
            log.warning("outbox.kafka_clock_behind", beyond_s=MAX_AHEAD_MS // 1000)
        elif was_behind and not is_behind:
            log.info("outbox.kafka_clock_agrees")
