"""Days become a month while everything is written to, and nothing of them is lost or doubled."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from django.db import connection

from prices.database.uuid7 import first_id_at
from prices.maintenance import merging
from prices.maintenance.merging import merge_days
from prices.models import PricePoint, SymbolAverage
from tests.logged import events_logged
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
TABLES = ("price_points", "symbol_averages")
DAYS = 30
OVER = date(2031, 7, 3)


@pytest.fixture(autouse=True)
def days() -> Iterator[None]:
    """Make a partition of each day of June 2031, as all tables had them before."""
    with connection.cursor() as cursor:
        for table in TABLES:
            for day in range(1, DAYS + 1):
                begin = datetime(2031, 6, day, tzinfo=UTC)
                cursor.execute(
                    f"CREATE TABLE {table}_203106{day:02} PARTITION OF {table} FOR VALUES FROM (%s) TO (%s)",
                    [first_id_at(begin), first_id_at(begin + timedelta(days=1))],
                )
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relname ~ '_203106([0-9]{2})?$' AND relkind = 'r'")
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {name} CASCADE")
        cursor.execute("SELECT proname FROM pg_proc WHERE proname ~ '^(follow|copy)_.*_203106$'")
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP FUNCTION {name} CASCADE")


def store(number: int) -> UUID:
    """Store the average number so many, each an hour after the one before."""
    event_id = first_id_at(datetime(2031, 6, 1, tzinfo=UTC) + timedelta(hours=number))
    SymbolAverage.objects.create(event_id=event_id, symbol="A", price=number + 1, window_size=1, provider="x")
    return event_id


def partitions(table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relid::text FROM pg_partition_tree(%s) WHERE isleaf ORDER BY 1", [table])
        return [name for (name,) in cursor.fetchall() if "203106" in name]


def rows() -> list[tuple[UUID, int]]:
    return [(row.event_id, int(row.price)) for row in SymbolAverage.objects.order_by("event_id")]


def merge_all() -> list[str]:
    """Merge until nothing is left to do: what others hold locked is tried again."""
    merged: list[str] = []

    def is_all_merged() -> bool:
        merged.extend(merge_days(OVER))
        return len(merged) == len(TABLES)

    wait_until(is_all_merged, timeout_s=60)
    return merged


def test_days_of_a_month_that_is_over_become_one() -> None:
    stored = [(store(number), number + 1) for number in range(0, DAYS * 24, 7)]
    point_id = first_id_at(datetime(2031, 6, 9, tzinfo=UTC))
    PricePoint.objects.create(
        id=point_id,
        symbol="A",
        provider="x",
        price=1,
        precision="unknown",
        received_at=datetime(2031, 6, 9, tzinfo=UTC),
        raw=point_id,
    )
    assert merge_days(OVER - timedelta(days=1)) == []
    assert merge_days(OVER) == ["price_points_203106", "symbol_averages_203106"]
    assert {table: partitions(table) for table in TABLES} == {table: [f"{table}_203106"] for table in TABLES}
    assert rows() == stored
    assert PricePoint.objects.get().id == point_id
    assert merge_days(OVER) == []


def test_month_is_a_partition_like_any_other() -> None:
    merge_days(OVER)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid),"
            " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'),"
            " (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid)"
            " FROM pg_class c WHERE relname IN ('symbol_averages', 'symbol_averages_203106')"
        )
        first, second = cursor.fetchall()
        assert first == second
        cursor.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM pg_proc WHERE proname LIKE 'follow_%'")
        assert cursor.fetchone() == (0,)


def test_rows_that_are_written_meanwhile_are_there_as_they_were_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New rows, changed ones, and deleted ones, in all days, by two writers."""
    monkeypatch.setattr(merging, "ROWS_AT_ONCE", 7)
    expected = {number: number + 1 for number in range(0, DAYS * 24, 2)}
    for number in expected:
        store(number)
    is_merged = threading.Event()

    def write(writer: int) -> dict[int, int | None]:
        written: dict[int, int | None] = {}
        chance = Random(writer)
        with closing(connection):
            while not is_merged.is_set():
                number = chance.randrange(DAYS * 12) * 2 + writer
                row = SymbolAverage.objects.filter(
                    event_id=first_id_at(datetime(2031, 6, 1, tzinfo=UTC) + timedelta(hours=number))
                )
                if chance.random() < 0.2:
                    row.delete()
                    written[number] = None
                elif row.update(price=(price := chance.randrange(1, 10**6))):
                    written[number] = price
                else:
                    store(number)
                    written[number] = number + 1
        return written

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, writer) for writer in range(2)]
        try:
            merge_all()
        finally:
            is_merged.set()
        written = {number: price for writer in writers for number, price in writer.result(20).items()}
    final = expected | written
    assert written
    assert [price for _id, price in rows()] == [price for _number, price in sorted(final.items()) if price]


def test_merge_that_was_broken_off_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [(store(number), number + 1) for number in range(50)]

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merging._Merge, "_copy", break_off)
        with pytest.raises(KeyboardInterrupt):
            merge_days(OVER)
    # What comes in between is written to the days alone, or to both.
    stored.append((store(60), 61))
    assert rows() == stored
    assert len(merge_all()) == len(TABLES)
    assert rows() == stored


def test_rows_of_days_without_a_partition_go_along(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of June the days up to the 20th: what came later lies in the default partition."""
    with connection.cursor() as cursor:
        for day in range(21, DAYS + 1):
            cursor.execute(f"DROP TABLE symbol_averages_203106{day}")
    stored = [(store(number), number + 1) for number in (5, 20 * 24, 25 * 24)]
    with monkeypatch.context() as patch:
        patch.setattr(merging, "MAX_MOVED", 1)
        assert merge_days(OVER) == ["price_points_203106"]
    assert events_logged(caplog)["partitions.not_merged"] == 1
    assert merge_days(OVER) == ["symbol_averages_203106"]
    assert rows() == stored
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM symbol_averages_default")
        assert cursor.fetchone() == (0,)


def test_merge_whose_session_ends_does_nothing_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have begun meanwhile, and would find its table taken away."""
    stored = [(store(number), number + 1) for number in range(50)]

    def lose_session(*_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with monkeypatch.context() as patch:
        patch.setattr(merging._Merge, "_copy", lose_session)
        assert merge_days(OVER) == []
    connection.close()
    assert events_logged(caplog)["partitions.not_merged"] == 1
    assert rows() == stored
    assert len(merge_all()) == len(TABLES)
    assert rows() == stored


def test_month_that_is_in_use_is_left_for_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MOST_TRIES", 2)
    is_locked, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("LOCK TABLE symbol_averages_20310617 IN ROW EXCLUSIVE MODE")
            is_locked.set()
            may_end.wait(30)
            cursor.execute("ROLLBACK")

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_locked.wait(20)
    try:
        assert merge_days(OVER) == ["price_points_203106"]
    finally:
        may_end.set()
        holder.join(20)
    assert events_logged(caplog)["partitions.not_merged"] == 1
    assert merge_days(OVER) == ["symbol_averages_203106"]
