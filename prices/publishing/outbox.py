"""The outbox: what is stored and was not published yet goes to Kafka.

A point may be sent more than once, never zero times: whatever a process could not publish (it died,
Kafka was away) stays without `published_at`, and the sweep sends it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import Exists, OuterRef

from prices.clock import database_now
from prices.database.advisory_locks import try_advisory_lock
from prices.database.uuid7 import first_id_at
from prices.models import PricePoint, RawMarketData, SymbolAverage
from prices.publishing.publisher import publisher

log = structlog.get_logger(__name__)

SWEEP_BATCH = 1000
SWEEP_LOCK = "outbox sweep"
# Ids begin with milliseconds.
_IDS_OF_A_DAY = 86_400_000 << 80


def sweep() -> int:
    """Publish what is pending and older than OUTBOX_SWEEP_AFTER_S, in id order; return how much was.

    One sweep runs at a time, over all processes; a second one ends at once. It ends early where
    Kafka does not answer. A point that Kafka refuses is passed over, and tried again by the next sweep.
    """
    published, after = 0, None
    refused: list[UUID] = []
    # A session lock: no transaction is held open while Kafka is waited for.
    with try_advisory_lock(SWEEP_LOCK) as lock:
        # Where PostgreSQL ended the session, another sweep may have begun.
        while lock and (points := _pending_points(after, now=(now := database_now()))):
            after = points[-1].id
            publication = publisher().publish(points, polls=_polls_of(points), now=now)
            published += publication.confirmed
            if not publication.is_answered:
                break
            alone = [point for point in points if point.id in publication.refused]
            taken, left = _publish_alone(alone, now=now)
            published, refused = published + taken, refused + left
    if refused:
        log.error("outbox.refused_by_kafka", points=[str(each) for each in refused[:10]], count=len(refused))
    return published


def _publish_alone(points: Sequence[PricePoint], *, now: datetime) -> tuple[int, list[UUID]]:
    """Publish what was refused with others one by one; return how many were taken, and which were not."""
    alone = [publisher().publish([point], polls=_polls_of([point]), now=now) for point in points]
    return sum(each.confirmed for each in alone), [point_id for each in alone for point_id in each.refused]


def republish_missing() -> int:
    """Put points that were published but have no average back into the outbox; return how many.

    For a Kafka that lost its log. The sweep then sends them; a point that was merely not consumed yet
    arrives twice, which the consumer bears.
    """
    averages = SymbolAverage.objects.filter(event_id=OuterRef("id"))
    lost = PricePoint.objects.filter(~Exists(averages), published_at__isnull=False)
    ids = PricePoint.objects.order_by("id").values_list("id", flat=True)
    count, since = 0, UUID(int=0)
    # A day at a time: one statement for all would hold all partitions, and do nothing if it was cut off.
    while first := ids.filter(id__gte=since).first():
        since = UUID(int=first.int + _IDS_OF_A_DAY)
        count += lost.filter(id__gte=first, id__lt=since).update(published_at=None)
    return count


def _pending_points(after: UUID | None, *, now: datetime) -> list[PricePoint]:
    # By their ids, which are of PostgreSQL's clock. Those of a time to come (it was ahead, and is set right)
    # wait for it: Kafka, or the consumer, would refuse them.
    old = first_id_at(now - timedelta(seconds=settings.OUTBOX_SWEEP_AFTER_S))
    pending = PricePoint.objects.filter(published_at__isnull=True, id__lt=old)
    if after is not None:
        pending = pending.filter(id__gt=after)
    return list(pending.order_by("id")[:SWEEP_BATCH])


def _polls_of(points: Sequence[PricePoint]) -> dict[UUID, UUID | None]:
    raw_ids = {point.raw for point in points}
    return dict(RawMarketData.objects.filter(id__in=raw_ids).values_list("id", "poll"))
