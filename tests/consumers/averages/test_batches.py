"""Each row's last change is told by a batch of its transaction, in few ranges and lists."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models import QuerySet

from consumers.averages.batches import IDS_IN_A_ROW, LEAST_IN_RANGE
from consumers.averages.windows import MOST_POINTS
from consumers.repair.rebuild import rebuild_averages
from prices.models import AverageBatch, SymbolAverage
from tests.consumers.samples import EventStore, event, events, noted_kinds, points_of

pytestmark = pytest.mark.django_db(transaction=True)
HOUR_MS = timedelta(hours=1) // timedelta(milliseconds=1)


def batches() -> QuerySet[AverageBatch]:
    """Return what was written, without the row with which the table begins."""
    return AverageBatch.objects.filter(rows__gt=0).order_by("tx", "number")


def last_kinds() -> list[str]:
    """Return whether each row's last change added it, in the order of the ids."""
    kinds = noted_kinds()
    return [kinds[row.event_id, row.tx] for row in SymbolAverage.objects.order_by("event_id")]


def test_batch_in_order_is_one_range(store: EventStore) -> None:
    store.write(events([str(price) for price in range(1, 41)]))
    (batch,) = batches()
    assert (batch.rows, batch.added, batch.changed) == (40, [], [])
    assert last_kinds() == ["added"] * 40


def test_few_points_are_listed(store: EventStore) -> None:
    store.write(events(["1", "2"]))
    (batch,) = batches()
    assert (batch.first_id, len(batch.added), batch.rows) == (None, 2, 2)


def test_backlogs_of_other_hours_are_ranges_of_their_own(store: EventStore) -> None:
    """Else who reads the batch would go through all that was stored in the hours between."""
    late = [event(number, symbol=f"SIM-{number}") for number in range(LEAST_IN_RANGE)]
    new = [event(HOUR_MS + number, symbol="SIM-B") for number in range(LEAST_IN_RANGE)]
    store.write([*new, event(HOUR_MS // 2, symbol="SIM-C"), *late])
    of_late, of_new = batches()
    assert of_late.last_id is not None
    assert of_new.first_id is not None
    assert of_late.last_id < event(HOUR_MS // 2).event_id < of_new.first_id
    assert (of_late.rows, len(of_late.added), of_new.rows) == (LEAST_IN_RANGE + 1, 1, LEAST_IN_RANGE)
    assert set(last_kinds()) == {"added"}


@pytest.mark.parametrize("later", [20, MOST_POINTS + 20])
def test_late_point_is_added_and_its_successors_are_changed(store: EventStore, later: int) -> None:
    """By the fast path, and by the slow one where it is too late for that."""
    stream = events([str(price) for price in range(1, later + 1)])
    late = stream.pop(3)
    store.write(stream)
    store.write([late])
    assert last_kinds()[:9] == ["added"] * 4 + ["changed"] * 4 + ["added"]


def test_what_changes_nothing_is_no_batch(store: EventStore) -> None:
    stream = events(["1", "2", "3"])
    store.write(stream)
    store.write(stream)
    assert batches().count() == 1


def test_numbers_that_a_dump_has_brought_keep_nothing_from_being_stored(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 11)])
    store.write(stream[:5])
    (first,) = batches()
    AverageBatch.objects.bulk_create(
        AverageBatch(tx=first.tx + ahead, number=0, rows=0, added=[], changed=[]) for ahead in range(1, 20)
    )
    store.write(stream[5:])
    assert len(noted_kinds()) == 10


def test_chunk_of_a_rebuild_lists_what_it_has_added_and_changed(make_store: Callable[[], EventStore]) -> None:
    points = [points_of(number, {"SIM-A": str(number + 1)}) for number in range(IDS_IN_A_ROW + 100)]
    make_store().write([event(number, price="7") for number in range(50)])
    AverageBatch.objects.all().delete()
    SymbolAverage.objects.filter(event_id=points[30][0].id).delete()
    rebuild_averages()
    kinds = last_kinds()
    assert kinds[:30] == ["changed"] * 6 + kinds[6:30]
    assert kinds[30] == "added"
    assert kinds[50:] == ["added"] * (len(points) - 50)
    # The first chunks are of 500 rows, later ones are larger.
    assert sum(batch.rows for batch in batches()) == len(points)
