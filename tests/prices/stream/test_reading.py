"""Whatever is written, by several and late: a reader sees each version once at most, and the last always."""

import json
import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from consumers.averages.windows import MOST_POINTS
from consumers.repair.rebuild import rebuild_averages
from prices.models import AverageBatch, SymbolAverage
from prices.stream import reading
from prices.stream.events import StreamEvent, with_quality
from prices.stream.positions import Cursor, Position, parse_cursor
from prices.stream.reading import (
    Page,
    is_known,
    newest_position,
    read_clock_and_waiting,
    read_history,
    read_page,
)
from tests.consumers.samples import EventStore, event, events, points_of
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
BEGIN = Position(0)


def read_on(after: Position, *, symbols: list[str] | None = None) -> list[StreamEvent]:
    """Return all that comes after a position, page by page."""
    found: list[StreamEvent] = []
    while True:
        page = read_page(after, symbols=symbols)
        found += page.events
        if page.is_last:
            return found
        after = page.end


def kinds(page: Page | list[StreamEvent]) -> list[tuple[UUID, str]]:
    found = page.events if isinstance(page, Page) else page
    return [(each.position.event_id, str(each.kind)) for each in found]


def table() -> dict[UUID, int]:
    """Return the version of each stored event."""
    return dict(SymbolAverage.objects.values_list("event_id", "tx"))


def last_versions(found: list[StreamEvent]) -> dict[UUID, int]:
    """Return the last version of each event; none came twice, and none after a later one."""
    versions: dict[UUID, int] = {}
    for each in found:
        assert versions.get(each.position.event_id, 0) < each.position.tx
        versions[each.position.event_id] = each.position.tx
    return versions


def test_row_is_told_as_averages_tells_it_with_version_and_quality(store: EventStore) -> None:
    (point,) = points_of(0, {"SIM-A": "150.25"})
    store.write([event(0, price="150.25")])
    (found,) = read_on(BEGIN)
    told = json.loads(with_quality(found.row, now=point.received_at + timedelta(seconds=90)))
    assert {
        name: told[name] for name in ("event_id", "symbol", "price", "average", "currency", "version")
    } == {
        "event_id": str(point.id),
        "symbol": "SIM-A",
        "price": 150.25,
        "average": None,
        "currency": None,
        "version": found.position.tx,
    }
    assert (told["age_seconds"], told["precision"], told["received_at"]) == (
        90,
        "second",
        "2026-01-05T12:00:00Z",
    )
    assert (told["freshness"], told["market_state"]) == ("delayed", "open")


def test_new_rows_come_in_order_and_once(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 31)])
    store.write(stream[:20])
    page = read_page(BEGIN, symbols=None)
    assert kinds(page) == [(each.event_id, "price") for each in stream[:20]]
    store.write(stream[20:])
    assert kinds(read_page(page.end, symbols=None)) == [(each.event_id, "price") for each in stream[20:]]


@pytest.mark.parametrize("later", [20, MOST_POINTS + 20])
def test_late_event_is_a_price_and_what_it_changes_are_corrections(store: EventStore, later: int) -> None:
    stream = events([str(price) for price in range(1, later + 1)])
    late = stream.pop(5)
    store.write(stream)
    seen = newest_position()
    store.write([late])
    changed = [(each.event_id, "correction") for each in stream[5:9]]
    assert kinds(read_page(seen, symbols=None)) == [(late.event_id, "price"), *changed]


def test_row_that_was_corrected_before_anybody_looked_comes_once(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 11)])
    late = stream.pop(5)
    store.write(stream)
    store.write([late])
    found = read_on(BEGIN)
    assert last_versions(found) == table()
    assert len(found) == 10


def test_rows_of_others_in_the_same_range_come_with_their_own_transaction(
    make_store: Callable[[], EventStore],
) -> None:
    first, second = make_store(), make_store()
    first.write([event(number, symbol="SIM-A") for number in range(0, 40, 2)])
    seen = newest_position()
    second.write([event(number, symbol="SIM-B") for number in range(1, 41, 2)])
    assert {each.row.symbol for each in read_on(seen)} == {"SIM-B"}
    assert last_versions(read_on(BEGIN)) == table()


def test_reader_of_some_symbols_gets_these(store: EventStore) -> None:
    store.write([event(number, symbol=f"SIM-{number % 5}") for number in range(50)])
    found = read_on(BEGIN, symbols=["SIM-1", "SIM-3", "SIM-NONE"])
    assert [each.row.symbol for each in found] == ["SIM-1", "SIM-3"] * 10
    assert read_on(BEGIN, symbols=[]) == []


def test_reader_goes_on_after_any_event(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a client that was cut off there and comes back."""
    stream = events([str(price) for price in range(1, 41)])
    for begin in range(0, 40, 10):
        store.write([each for number, each in enumerate(stream[begin : begin + 10]) if number != 3])
        store.write([stream[begin + 3]])
    whole = kinds(read_on(BEGIN))
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 3)
    assert kinds(read_on(BEGIN)) == whole
    for number, each in enumerate(read_on(BEGIN)):
        cursor = parse_cursor(str(Cursor(read_history(), each.position)))
        assert cursor is not None
        assert kinds(read_on(cursor.position)) == whole[number + 1 :]


def test_transactions_of_which_not_all_notes_are_read_at_once_stay_whole(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_NOTES_AT_ONCE", 3)
    for number in range(10):
        hour = number * 3_600_000
        # Two notes each.
        store.write([event(hour + part + step) for part in (0, 1_800_000) for step in range(10)])
    assert AverageBatch.objects.filter(number=1).count() == 10
    assert last_versions(read_on(BEGIN)) == table()


def test_rebuild_of_thousands_of_rows_comes_as_corrections(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 500)
    for number in range(2_500):
        points_of(number, {"SIM-A": "100"})
    store.write([event(number, price="7") for number in range(2_500)])
    seen = newest_position()
    rebuild_averages()
    found = read_on(seen)
    assert {str(each.kind) for each in found} == {"correction"}
    assert last_versions(found) == table()


@pytest.mark.parametrize("seed", range(3))
def test_reader_at_random_moments_ends_with_what_is_stored(
    make_store: Callable[[], EventStore], seed: int
) -> None:
    chance = random.Random(seed)
    stores = [make_store(), make_store()]
    waiting = [
        event(number, symbol=f"SIM-{number % 3}", price=str(chance.randint(1, 99))) for number in range(300)
    ]
    found: list[StreamEvent] = []
    while waiting:
        batch = [
            waiting.pop(min(int(chance.expovariate(0.1)), len(waiting) - 1))
            for _ in range(min(chance.randint(1, 20), len(waiting)))
        ]
        chance.choice(stores).write(batch)
        if chance.random() < 0.5:
            # Cut off in the middle of what was read.
            more = read_on(found[-1].position if found else BEGIN)
            found += more[: chance.randint(0, len(more))]
    found += read_on(found[-1].position if found else BEGIN)
    assert last_versions(found) == table()


def test_write_elsewhere_that_stays_open_holds_back_and_loses_nothing(store: EventStore) -> None:
    seen = newest_position()
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("CREATE TEMPORARY TABLE held AS SELECT pg_current_xact_id()")
        store.write(events(["1", "2"]))
        page = read_page(seen, symbols=None)
        assert (page.events, page.end) == ([], seen)
        clock, since = read_clock_and_waiting()
        assert since is not None
        assert timedelta() <= clock.now - since < timedelta(minutes=5)
    wait_until(lambda: read_clock_and_waiting()[1] is None)
    assert last_versions(read_on(seen)) == table()


def test_what_an_open_transaction_writes_comes_once_it_is_committed(store: EventStore) -> None:
    """Though others that began later have ended, and were read, before it."""
    store.write([event(0)])
    with psycopg.connect(**connection.get_connection_params()) as slow:
        slow.execute(
            "INSERT INTO symbol_averages (event_id, symbol, price, window_size, provider)"
            " VALUES (%s, 'SIM-S', 1, 1, 'simulated')",
            [event(5, symbol="SIM-S").event_id],
        )
        slow.execute(
            "INSERT INTO average_batches (number, added, changed, rows) VALUES (0, %s::uuid[], '{}', 1)",
            [[event(5, symbol="SIM-S").event_id]],
        )
        store.write([event(1)])
        before = read_page(BEGIN, symbols=None)
        assert [each.row.symbol for each in before.events] == ["SIM-A"]
    after = read_on(before.end)
    assert last_versions([*before.events, *after]) == table()


def test_position_before_what_is_kept_or_beyond_it_is_not_known(store: EventStore) -> None:
    store.write([event(0)])
    seen = newest_position()
    assert is_known(seen)
    assert not is_known(Position(seen.tx + 1))
    store.write([event(1)])
    AverageBatch.objects.filter(tx__lte=seen.tx).delete()
    assert not is_known(seen)
    assert is_known(newest_position())


@pytest.mark.parametrize(
    "text", ["", "1", "abc", "0123456789ab.", "0123456789ab.x", "0123456789ab.1.2", "é.1"]
)
def test_text_that_is_no_cursor_is_told_apart(text: str) -> None:
    assert parse_cursor(text) is None
