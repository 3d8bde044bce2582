from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection

from prices.ids import first_id_at
from prices.models import SymbolAverage
from prices.partitions import PARTITIONED_TABLES, make_partitions

DAY = date(2031, 5, 6)
pytestmark = pytest.mark.django_db


def partition_of(event_id: UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM symbol_averages WHERE event_id = %s", [event_id])
        return str(cursor.fetchone()[0])


def add_average(moment: datetime) -> UUID:
    event_id = first_id_at(moment)
    SymbolAverage.objects.create(event_id=event_id, symbol="A", price=1, window_size=1, provider="x")
    return event_id


def test_partitions_are_made_eight_days_for_each_table_once() -> None:
    assert len(make_partitions(DAY)) == 8 * len(PARTITIONED_TABLES)
    assert make_partitions(DAY) == []
    assert len(make_partitions(DAY + timedelta(days=1))) == len(PARTITIONED_TABLES)


@pytest.mark.parametrize(
    ("moment", "partition"),
    [
        (datetime(2031, 5, 6, tzinfo=UTC), "symbol_averages_20310506"),
        (datetime(2031, 5, 6, 23, 59, 59, 999000, tzinfo=UTC), "symbol_averages_20310506"),
        (datetime(2031, 5, 7, tzinfo=UTC), "symbol_averages_20310507"),
        (datetime(2031, 5, 5, 23, 59, 59, 999000, tzinfo=UTC), "symbol_averages_default"),
    ],
)
def test_row_lies_in_the_partition_of_its_day(moment: datetime, partition: str) -> None:
    make_partitions(DAY)
    assert partition_of(add_average(moment)) == partition


def test_rows_in_the_default_partition_move_to_their_day() -> None:
    early = add_average(datetime(2031, 5, 6, 12, tzinfo=UTC))
    other = add_average(datetime(2031, 5, 4, 12, tzinfo=UTC))
    make_partitions(DAY)
    assert partition_of(early) == "symbol_averages_20310506"
    assert partition_of(other) == "symbol_averages_default"
    assert SymbolAverage.objects.count() == 2


def test_partition_has_the_constraints_and_indexes_of_its_table() -> None:
    make_partitions(DAY)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid),"
            " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')"
            " FROM pg_class c WHERE relname IN ('price_points', 'price_points_20310506') ORDER BY 1"
        )
        table, partition = cursor.fetchall()
    assert table[1:] == partition[1:]
