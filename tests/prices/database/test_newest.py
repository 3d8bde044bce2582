"""Rows are found wherever they lie, and old partitions are opened only where nothing else has enough."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from prices.database.newest import id_before, newest_rows
from prices.database.uuid7 import first_id_at
from prices.models import SymbolAverage

NOW = datetime(2031, 5, 6, 12, tzinfo=UTC)
AROUND = first_id_at(NOW)
pytestmark = pytest.mark.django_db


def store(*ages: timedelta) -> list[UUID]:
    ids = [first_id_at(NOW - age) for age in ages]
    SymbolAverage.objects.bulk_create(
        SymbolAverage(event_id=each, symbol="A", price=1, window_size=1, provider="x") for each in ids
    )
    return ids


def find(limit: int) -> tuple[list[UUID], int]:
    """Return the ids of the newest rows, and how many queries that took."""
    with CaptureQueriesContext(connection) as queries:
        rows = newest_rows(SymbolAverage.objects.all(), key="event_id", around=AROUND, limit=limit)
    return [row.event_id for row in rows], len(queries)


@pytest.mark.parametrize(("limit", "queries"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (9, 3)])
def test_newest_rows_are_found_at_any_age(limit: int, queries: int) -> None:
    ages = [timedelta(hours=1), timedelta(hours=23), timedelta(days=31), timedelta(days=400)]
    ids = store(timedelta(days=900), *ages)
    assert find(limit) == ([*ids[1:], ids[0]][:limit], queries)


def test_row_of_a_time_to_come_is_the_newest() -> None:
    (coming,) = store(-timedelta(days=2))
    assert find(1) == ([coming], 1)


@pytest.mark.parametrize("row_id", [UUID(int=0), UUID(int=(1 << 128) - 1), AROUND])
def test_id_before_any_id_is_an_id(row_id: UUID) -> None:
    earlier = id_before(row_id, timedelta(days=1))
    assert earlier.int == max((row_id.int >> 80) - 86_400_000, 0) << 80
    later = id_before(row_id, -timedelta(days=1))
    assert later.int == min((row_id.int >> 80) + 86_400_000, (1 << 48) - 1) << 80
