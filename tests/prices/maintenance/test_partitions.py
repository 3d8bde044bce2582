import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from django.db import connection, transaction

from prices.database.uuid7 import first_id_at
from prices.maintenance.partitions import (
    PARTITIONED_TABLES,
    make_partitions,
    missing_partitions,
    spans_in_default,
)
from prices.models import SymbolAverage
from tests.logged import events_logged
from tests.waiting import wait_until

DAY = date(2031, 5, 6)
BY_MONTH = [name for name, table in PARTITIONED_TABLES.items() if table.by_month]
BY_DAY = [name for name in PARTITIONED_TABLES if name not in BY_MONTH]
pytestmark = pytest.mark.django_db


def partition_of(event_id: UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM symbol_averages WHERE event_id = %s", [event_id])
        return str(cursor.fetchone()[0])


def add_average(moment: datetime) -> UUID:
    event_id = first_id_at(moment)
    SymbolAverage.objects.create(event_id=event_id, symbol="A", price=1, window_size=1, provider="x")
    return event_id


def test_partitions_are_made_for_eight_days_once() -> None:
    made = make_partitions(DAY)
    assert len([name for name in made if name.startswith("poll_runs_203105")]) == 8
    assert [name for name in made if name.startswith("price_points")] == ["price_points_203105"]
    assert len(made) == 8 * len(BY_DAY) + len(BY_MONTH)
    assert make_partitions(DAY) == []
    assert len(make_partitions(DAY + timedelta(days=1))) == len(BY_DAY)
    # A week before the month ends the next one is made.
    assert len(make_partitions(date(2031, 5, 24))) == 8 * len(BY_DAY)
    assert len(make_partitions(date(2031, 5, 25))) == len(BY_DAY) + len(BY_MONTH)


def test_month_that_has_days_goes_on_by_days() -> None:
    """As after an update: all tables had a partition a day before."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE symbol_averages_20310530 PARTITION OF symbol_averages FOR VALUES FROM (%s) TO (%s)",
            [first_id_at(datetime(2031, 5, day, tzinfo=UTC)) for day in (30, 31)],
        )
    made = [name for name in make_partitions(date(2031, 5, 29)) if name.startswith("symbol_averages")]
    assert made == ["symbol_averages_20310529", "symbol_averages_20310531", "symbol_averages_203106"]
    assert partition_of(add_average(datetime(2031, 5, 31, 12, tzinfo=UTC))) == "symbol_averages_20310531"
    assert partition_of(add_average(datetime(2031, 6, 1, tzinfo=UTC))) == "symbol_averages_203106"


@pytest.mark.parametrize(
    ("moment", "partition"),
    [
        (datetime(2031, 5, 1, tzinfo=UTC), "symbol_averages_203105"),
        (datetime(2031, 5, 31, 23, 59, 59, 999000, tzinfo=UTC), "symbol_averages_203105"),
        (datetime(2031, 6, 1, tzinfo=UTC), "symbol_averages_default"),
        (datetime(2031, 4, 30, 23, 59, 59, 999000, tzinfo=UTC), "symbol_averages_default"),
    ],
)
def test_row_lies_in_the_partition_of_its_time(moment: datetime, partition: str) -> None:
    make_partitions(DAY)
    assert partition_of(add_average(moment)) == partition


def test_rows_in_the_default_partition_move_to_their_time() -> None:
    early = add_average(datetime(2031, 5, 6, 12, tzinfo=UTC))
    other = add_average(datetime(2031, 4, 4, 12, tzinfo=UTC))
    make_partitions(DAY)
    # By days, which are moved faster than a month.
    assert partition_of(early) == "symbol_averages_20310506"
    assert partition_of(other) == "symbol_averages_default"
    assert SymbolAverage.objects.count() == 2


def test_partition_has_the_constraints_and_indexes_of_its_table() -> None:
    make_partitions(DAY)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid),"
            " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')"
            " FROM pg_class c WHERE relname IN ('price_points', 'price_points_203105') ORDER BY 1"
        )
        table, partition = cursor.fetchall()
    assert table[1:] == partition[1:]


@pytest.fixture
def made_for_good(transactional_db: None) -> Iterator[None]:
    """Take away what a test made outside of a transaction."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relname ~ '_203105([0-9]{2})?$' AND relkind = 'r'")
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


@contextmanager
def writing(table: str) -> Iterator[None]:
    """Write to the table in a transaction that stays open for the block, in another session."""
    is_locked, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with closing(connection), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
            is_locked.set()
            may_end.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    assert is_locked.wait(20)
    try:
        yield
    finally:
        may_end.set()
        writer.join(20)


@pytest.mark.usefixtures("made_for_good")
def test_table_in_use_leaves_no_other_out() -> None:
    tables = list(PARTITIONED_TABLES)
    with writing(tables[0]):
        made = make_partitions(DAY)
    assert len(made) == 8 * (len(BY_DAY) - 1) + len(BY_MONTH)
    assert not [name for name in made if name.startswith(tables[0])]
    assert len(make_partitions(DAY)) == 8


@pytest.mark.usefixtures("made_for_good")
def test_writers_wait_once_and_not_for_each_day(caplog: pytest.LogCaptureFixture) -> None:
    """Behind a partition, which waits behind a transaction that goes on and on: for the time of its lock."""
    waits: list[float] = []

    def write() -> None:
        with closing(connection):
            while not is_made.is_set():
                began = time.monotonic()
                add_average(datetime(2031, 5, 6, 12, tzinfo=UTC) + timedelta(milliseconds=len(waits)))
                waits.append(time.monotonic() - began)

    is_made = threading.Event()
    writer = threading.Thread(target=write)
    with writing("symbol_averages"):
        writer.start()
        wait_until(lambda: waits)
        make_partitions(DAY)
        is_made.set()
    writer.join(20)
    assert 0.2 < max(waits) < 3
    assert events_logged(caplog)["partitions.not_made"] == 1


def test_rows_that_are_too_many_to_move_stay_in_the_default() -> None:
    early = add_average(datetime(2031, 5, 6, 12, tzinfo=UTC))
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pg_temp.take_long() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(10); RETURN OLD; END'"
        )
        cursor.execute(
            "CREATE TRIGGER too_many BEFORE DELETE ON symbol_averages_default"
            " FOR EACH ROW EXECUTE FUNCTION pg_temp.take_long()"
        )
        make_partitions(DAY)
        assert partition_of(early) == "symbol_averages_default"
        cursor.execute("DROP TRIGGER too_many ON symbol_averages_default")
    make_partitions(DAY)
    assert partition_of(early) == "symbol_averages_20310506"


def test_missing_partitions_are_named_up_to_two_days_ahead() -> None:
    assert "price_points_203105" in missing_partitions(DAY)
    assert len(missing_partitions(DAY)) == 3 * len(BY_DAY) + len(BY_MONTH)
    make_partitions(DAY)
    assert missing_partitions(DAY + timedelta(days=5)) == []
    assert missing_partitions(DAY + timedelta(days=6)) == [f"{table}_20310514" for table in BY_DAY]
    assert set(missing_partitions(date(2031, 5, 30))) >= {f"{table}_203106" for table in BY_MONTH}


def test_spans_of_rows_without_a_partition() -> None:
    assert spans_in_default() == {}
    add_average(datetime(2031, 5, 4, 23, 59, tzinfo=UTC))
    add_average(datetime(2031, 5, 6, tzinfo=UTC))
    assert spans_in_default() == {"symbol_averages": (date(2031, 5, 4), date(2031, 5, 6))}
