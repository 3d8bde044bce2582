import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from django.db import connection

from prices.ids import first_id_at
from prices.models import SymbolAverage
from prices.partitions import PARTITIONED_TABLES, make_partitions
from tests.waiting import wait_until

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


@pytest.fixture
def made_for_good(transactional_db: None) -> Iterator[None]:
    """Take away what a test made outside of a transaction."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relname ~ '_203105[0-9]{2}$' AND relkind = 'r'")
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {name}")


@pytest.mark.usefixtures("made_for_good")
def test_rows_that_come_while_a_partition_is_made_are_not_refused() -> None:
    """As when partitions were not made in time: rows of the day are on their way to the default partition."""
    is_made = threading.Event()

    def write(writer: int) -> int:
        with closing(connection):
            for number in count():
                moment = datetime(2031, 5, 6, 12, writer, tzinfo=UTC) + timedelta(milliseconds=number)
                add_average(moment)
                if is_made.is_set():
                    return number + 1
        raise AssertionError("never")

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        wait_until(lambda: SymbolAverage.objects.count() > 100)
        make_partitions(DAY)
        is_made.set()
        written = sum(writer.result(20) for writer in writers)
    assert SymbolAverage.objects.count() == written
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM symbol_averages_default")
        assert cursor.fetchone() == (0,)
