"""What a rebuild adds, corrects and leaves, and that it can end anywhere."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.averages.columns import Series
from consumers.averages.connection import connect
from consumers.repair import rebuild
from consumers.repair.rebuild import Progress, RebuildError, Rebuilt, rebuild_averages
from consumers.repair.verify import Verdict, verify_averages
from prices.models import PricePoint, SymbolAverage
from tests.consumers.locks import held_lock
from tests.consumers.samples import (
    BEGIN,
    EventStore,
    assert_averages_right,
    averages,
    event,
    event_id,
    events,
    point,
)
from tests.examples import examples

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic")]
PRICES = ["100", "101", "99", "102", "98", "103", "97.5", "104"]
LAST = len(PRICES) - 1
SYMBOLS = ("SIM-A", "SIM-B")


@pytest.fixture
def consumed(store: EventStore) -> EventStore:
    """Eight points of SIM-A, all published and averaged."""
    for number, price in enumerate(PRICES):
        point(number, price=price)
    store.write(events(PRICES))
    return store


def row(number: int, *, symbol: str = "SIM-A") -> Any:
    return SymbolAverage.objects.filter(event_id=event_id(number, symbol=symbol))


def counts(rebuilt: Rebuilt) -> tuple[int, int, int]:
    assert rebuilt.is_complete
    assert rebuilt.looked_at == rebuilt.inserted + rebuilt.corrected + rebuilt.unchanged
    return rebuilt.inserted, rebuilt.corrected, rebuilt.unchanged


def verdicts() -> dict[str, int]:
    return {verdict.value: count for verdict, count in verify_averages().counts.items() if count}


def stored() -> list[dict[str, Any]]:
    return [dict(found) for found in SymbolAverage.objects.order_by("event_id").values()]


@contextmanager
def chunks_of(rows: int) -> Iterator[None]:
    """Let a rebuild take so many rows at once, whatever that takes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FIRST_ROWS", "LEAST_ROWS", "MOST_ROWS"):
            patch.setattr(rebuild, name, rows)
        yield


@pytest.mark.usefixtures("consumed")
def test_right_rows_stay_as_they_are() -> None:
    before = stored()
    assert counts(rebuild_averages()) == (0, 0, 8)
    assert stored() == before


def test_empty_tables_are_done_at_once() -> None:
    assert counts(rebuild_averages()) == (0, 0, 0)


@pytest.mark.usefixtures("consumed")
def test_lost_row_comes_back_as_it_was() -> None:
    before = stored()
    row(3).delete()
    assert counts(rebuild_averages()) == (1, 0, 7)
    changing = {"tx", "created_at"}
    assert [{k: v for k, v in each.items() if k not in changing} for each in stored()] == [
        {k: v for k, v in each.items() if k not in changing} for each in before
    ]


def test_point_that_was_never_consumed_is_put_into_the_windows_after_it(store: EventStore) -> None:
    for number, price in enumerate(PRICES):
        point(number, price=price)
    store.write([each for each in events(PRICES) if each.event_id != event_id(2)])
    assert counts(rebuild_averages()) == (1, 4, 3)
    assert_averages_right(events(PRICES))
    assert verdicts() == {"right": 8}


def test_all_rows_are_made_of_points_alone() -> None:
    stream = [
        event(number, symbol=symbol, price=price) for symbol in SYMBOLS for number, price in enumerate(PRICES)
    ]
    for each in stream:
        point((each.event_id.int >> 80) - (event_id(0).int >> 80), symbol=each.symbol, price=str(each.price))
    assert counts(rebuild_averages()) == (16, 0, 0)
    assert_averages_right(stream)


@pytest.mark.parametrize(
    "change",
    [
        lambda: row(7).update(price=Decimal(1)),
        lambda: row(5).update(average=Decimal("100.61")),
        lambda: row(5).update(average=None, window_size=4),
        lambda: row(1).update(average=Decimal(7), window_size=5),
        lambda: row(4).update(provider="finnhub"),
        lambda: row(4).update(observed_at=None),
        lambda: row(4).update(observed_at=BEGIN + timedelta(seconds=1)),
    ],
    ids=["price", "average", "no average", "average before the fifth", "provider", "no time", "time"],
)
@pytest.mark.usefixtures("consumed")
def test_altered_row_is_corrected_and_written_alone(change: Callable[[], int]) -> None:
    before = stored()
    assert change() == 1
    assert counts(rebuild_averages()) == (0, 1, 7)
    after = stored()
    assert [{**each, "tx": 0} for each in after] == [{**each, "tx": 0} for each in before]
    moved = [new["tx"] > old["tx"] for new, old in zip(after, before, strict=True)]
    assert sum(moved) == 1


@pytest.mark.parametrize("only", [None, *SYMBOLS])
def test_row_under_another_symbol_goes_home(consumed: EventStore, only: str | None) -> None:
    """The windows that it was in and those that it belongs in follow, whichever symbol is rebuilt."""
    others = [event(number, symbol="SIM-B", price=price) for number, price in enumerate(PRICES)]
    for number, price in enumerate(PRICES):
        point(number, symbol="SIM-B", price=price)
    row(4).update(symbol="SIM-B")
    consumed.write(others)
    with chunks_of(2):
        rebuilt = rebuild_averages(symbol=only)
    # Itself, and the rows of SIM-B that were averaged with it.
    assert (rebuilt.inserted, rebuilt.corrected) == (0, 5)
    assert_averages_right([*events(PRICES), *others])


def test_unpublished_point_is_left_to_the_consumer(store: EventStore) -> None:
    for number, price in enumerate(PRICES):
        point(number, price=price, published=number != LAST)
    store.write(events(PRICES[:LAST]))
    assert counts(rebuild_averages()) == (0, 0, 7)
    assert verdicts() == {"right": 7, "pending": 1}


def test_foreign_rows_stay_and_count_in_windows(store: EventStore) -> None:
    for number, price in enumerate(PRICES):
        if number not in (2, 5):
            point(number, price=price)
    store.write(events(PRICES))
    row(6).delete()
    row(5).update(average=Decimal(1))
    assert counts(rebuild_averages()) == (1, 1, 6)
    assert_averages_right(events(PRICES))
    assert verdicts() == {"right": 6, "foreign": 2}


@pytest.mark.usefixtures("consumed")
def test_since_leaves_older_rows_and_looks_back_into_their_prices() -> None:
    row(2).update(average=Decimal(1), window_size=5)
    row(3).update(price=Decimal(1))
    row(4).update(average=Decimal(1))
    row(6).update(average=Decimal(1))
    assert counts(rebuild_averages(since=BEGIN + timedelta(milliseconds=4))) == (0, 2, 2)
    found = averages()
    assert found[2] == Decimal(1)
    assert found[4:] == [Decimal(100), Decimal("100.6"), Decimal("99.9"), Decimal("100.9")]
    assert row(3).get().price == Decimal(1)


def test_symbol_leaves_others(consumed: EventStore) -> None:
    point(0, symbol="SIM-B")
    point(1, symbol="SIM-B")
    consumed.write([event(1, symbol="SIM-B")])
    row(5).delete()
    assert counts(rebuild_averages(symbol="SIM-B")) == (1, 1, 0)
    assert not row(5).exists()
    assert counts(rebuild_averages()) == (1, 0, 9)


@pytest.mark.usefixtures("consumed")
def test_rows_of_pruned_points_stay_and_count_in_windows() -> None:
    PricePoint.objects.filter(id__lt=event_id(2)).delete()
    row(0).update(average=Decimal(1), window_size=5)
    row(3).update(average=Decimal(1), window_size=5)
    row(7).delete()
    row(5).delete()
    assert counts(rebuild_averages()) == (2, 0, 6)
    assert averages()[:4] == [Decimal(1), None, None, Decimal(1)]
    assert averages()[4:] == [Decimal(100), Decimal("100.6"), Decimal("99.9"), Decimal("100.9")]


def test_point_put_between_rows_of_pruned_points_changes_the_windows_after_it(store: EventStore) -> None:
    stream = events(PRICES)
    store.write([each for each in stream if each.event_id != event_id(4)])
    for number in range(4, 8):
        point(number, price=PRICES[number])
    assert counts(rebuild_averages()) == (1, 3, 4)
    assert_averages_right(stream)


def test_digits_are_those_that_the_consumer_writes() -> None:
    """16 decimals beside 12 integer digits, and zeros at the end of a point's price."""
    prices = [
        *("999999999999.9999999999999999", "0.0000000000000001", "123456789012.1234567890123456"),
        *("7.00", "8.50"),
    ]
    for number, price in enumerate(prices):
        point(number, price=price)
    rebuild_averages()
    assert str(averages()[-1]) == "224691357805.52469135780246912"
    texts = {str(price) for price in SymbolAverage.objects.values_list("price", flat=True)}
    assert {"7", "8.5"} <= texts


@pytest.mark.usefixtures("consumed")
def test_stopped_between_chunks_it_leaves_the_rest_and_a_rerun_does_it() -> None:
    SymbolAverage.objects.all().delete()
    steps: list[Progress] = []
    with chunks_of(3):
        rebuilt = rebuild_averages(on_progress=steps.append, is_stopped=lambda: len(steps) == 2)
    assert (rebuilt.is_complete, rebuilt.inserted, rebuilt.chunks) == (False, 6, 2)
    assert verdicts() == {"right": 6, "missing": 2}
    assert counts(rebuild_averages()) == (2, 0, 6)


@pytest.mark.usefixtures("consumed")
def test_cut_connection_leaves_whole_chunks_and_says_so() -> None:
    SymbolAverage.objects.all().delete()

    def cut(_progress: Progress) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'rebuild_averages' AND datname = current_database()"
            )
            assert cursor.fetchall() == [(True,)]

    with chunks_of(3), pytest.raises(RebuildError, match="PostgreSQL does not answer"):
        rebuild_averages(on_progress=cut)
    assert verdicts() == {"right": 3, "missing": 5}
    assert counts(rebuild_averages()) == (5, 0, 3)


def test_second_rebuild_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, connect() as other:
        patch.setattr("consumers.averages.connection.LOCK_TIMEOUT_MS", 20)
        other.execute("SELECT pg_advisory_lock(hashtext('rebuild_averages'))")
        with pytest.raises(RebuildError, match="another rebuild_averages is running"):
            rebuild_averages()
    assert counts(rebuild_averages()) == (0, 0, 0)


@pytest.mark.usefixtures("consumed")
def test_symbol_that_stays_locked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.averages.connection.LOCK_TIMEOUT_MS", 20)
    with (
        held_lock("SIM-A"),
        pytest.raises(RebuildError, match=r"rows of SIM-A could not be had in 10 tries \(.*lock timeout"),
    ):
        rebuild_averages()


@pytest.mark.usefixtures("consumed")
def test_chunk_that_takes_too_long_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that another transaction holds stands in for a chunk that is too large."""
    monkeypatch.setattr(rebuild, "MOST_CHUNK_S", 0.05)
    row(7).update(average=Decimal(1))
    with connect() as other, other.transaction():
        other.execute("SELECT 1 FROM symbol_averages WHERE event_id = %s FOR UPDATE", [event_id(7)])
        with pytest.raises(RebuildError, match="statement timeout"):
            rebuild_averages()
    assert counts(rebuild_averages()) == (0, 1, 7)


class Held(NamedTuple):
    """What the tables hold of one id: no point, or one; no row, or whatever somebody wrote."""

    number: int
    symbol: str
    point: tuple[str, bool, str | None] | None
    row: tuple[str, str, str | None, str | None] | None

    @property
    def id(self) -> UUID:
        return event_id(self.number, symbol=self.symbol)


prices = st.sampled_from(["1", "2.5", "100.01", "7"])
currencies = st.sampled_from(["GBp", "GBp", "GBp", None])
one_held = st.tuples(
    st.none() | st.tuples(prices, st.sampled_from([True, True, True, False]), currencies),
    st.none() | st.tuples(st.sampled_from(SYMBOLS), prices, st.none() | prices, currencies),
)
KEYS = [(number, symbol) for number in range(11) for symbol in SYMBOLS]
tables = st.lists(one_held, min_size=len(KEYS), max_size=len(KEYS)).map(
    lambda found: [Held(*key, *each) for key, each in zip(KEYS, found, strict=True)]
)


def fill(held: Iterable[Held]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE symbol_averages, price_points")
    for each in held:
        if each.point:
            price, published, currency = each.point
            point(each.number, symbol=each.symbol, price=price, currency=currency, published=published)
    SymbolAverage.objects.bulk_create(
        SymbolAverage(
            event_id=each.id,
            symbol=each.row[0],
            price=Decimal(each.row[1]),
            average=None if each.row[2] is None else Decimal(each.row[2]),
            window_size=3 if each.row[2] is None else 5,
            provider="by hand",
            currency=each.row[3],
        )
        for each in held
        if each.row
    )


def expected(held: Iterable[Held]) -> dict[Series, list[tuple[UUID, Decimal, str]]]:
    """Return the id, price and provider of each series' rows as they should be, in order."""
    rows = defaultdict(list)
    for each in sorted(held, key=lambda each: each.id):
        if each.point and (each.row or each.point[1]):
            rows[each.symbol, each.point[2]].append((each.id, Decimal(each.point[0]), "simulated"))
        elif each.row:
            rows[each.row[0], each.row[3]].append((each.id, Decimal(each.row[1]), "by hand"))
    return rows


def assert_rebuilt(held: list[Held]) -> None:
    oldest = min((each.id for each in held if each.point), default=UUID(int=0))
    wanted = expected(held)
    assert SymbolAverage.objects.count() == sum(map(len, wanted.values()))
    for (symbol, currency), rows in wanted.items():
        found = list(SymbolAverage.objects.filter(symbol=symbol, currency=currency).order_by("event_id"))
        assert [(each.event_id, each.price, each.provider) for each in found] == rows
        for number, each in enumerate(found, start=1):
            window = rows[max(0, number - 5) : number]
            if window[0][0] >= oldest:
                assert each.window_size == len(window)
                mean = sum(Fraction(price) for _id, price, _provider in window) / 5
                assert each.average == (None if len(window) < 5 else mean)


@given(held=tables, rows=st.integers(1, 12), stop_after=st.integers(1, 12))
@settings(max_examples=examples(40))
def test_any_tables_in_any_chunks_end_right(held: list[Held], rows: int, stop_after: int) -> None:
    fill(held)
    steps: list[Progress] = []
    with chunks_of(rows):
        rebuild_averages(on_progress=steps.append, is_stopped=lambda: len(steps) >= stop_after)
        rebuilt = rebuild_averages()
    assert_rebuilt(held)
    found = verify_averages()
    assert (found.counts[Verdict.WRONG], found.counts[Verdict.MISSING]) == (0, 0)
    assert counts(rebuilt)
    assert rebuilt.looked_at == SymbolAverage.objects.count()
    assert counts(rebuild_averages()) == (0, 0, rebuilt.looked_at)


@given(lost=st.sets(st.integers(0, 19)), rows=st.integers(1, 8), stop_after=st.integers(1, 10))
@settings(max_examples=examples(20))
def test_ended_anywhere_it_leaves_no_wrong_row(
    make_store: Callable[[], EventStore], lost: set[int], rows: int, stop_after: int
) -> None:
    """Rows that were right without the lost points are right with those that are back."""
    fill([])
    stream = events([str(number + 1) for number in range(20)])
    for number in range(20):
        point(number, price=str(number + 1))
    writer = make_store()
    writer.write([each for number, each in enumerate(stream) if number not in lost])
    writer.close()
    steps: list[Progress] = []
    with chunks_of(rows):
        rebuilt = rebuild_averages(on_progress=steps.append, is_stopped=lambda: len(steps) >= stop_after)
    stored = set(SymbolAverage.objects.values_list("event_id", flat=True))
    assert_averages_right(each for each in stream if each.event_id in stored)
    assert verify_averages().counts[Verdict.MISSING] == len(lost) - rebuilt.inserted


def test_query_of_the_chunks_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many partitions its planning takes longer than the chunk, and consumers wait for it."""
    monkeypatch.setattr(rebuild, "FIRST_ROWS", 8)
    monkeypatch.setattr(rebuild, "MOST_ROWS", 8)
    opened: list[psycopg.Connection] = []
    plans: list[tuple[int, int]] = []

    def connect_and_keep() -> psycopg.Connection:
        opened.append(connect())
        return opened[-1]

    def look(_: Progress) -> None:
        looked = opened[0].execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements")
        plans.extend(looked.fetchall())

    monkeypatch.setattr(rebuild, "connect", connect_and_keep)
    for number in range(30):
        point(number)
    rebuilt = rebuild_averages(on_progress=look)
    assert (rebuilt.inserted, rebuilt.chunks) == (30, 4)
    # Used for each chunk, and once before the first.
    assert plans[-1] == (5, 0)
    assert_averages_right(event(number) for number in range(30))
