"""Whatever is written, in whatever order, by however many: the table obeys the definition."""

import itertools
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

import consumers.averages.connection
import consumers.averages.statements
import consumers.averages.windows
from consumers.averages.connection import connect
from consumers.averages.statements import lock_symbols
from consumers.averages.store import StoreUnavailableError
from consumers.averages.windows import MOST_POINTS
from prices.models import DeadLetter, SymbolAverage
from prices.publishing.events import PriceEvent
from tests.consumers.locks import held_lock
from tests.consumers.samples import (
    BEGIN,
    EventStore,
    assert_averages_right,
    averages,
    dead_letter,
    event,
    events,
)
from tests.consumers.sessions import end_sessions
from tests.examples import examples
from tests.waiting import wait_until

MakeStore = Callable[[], EventStore]
pytestmark = pytest.mark.django_db(transaction=True)
HUNDREDS = ["100", "101", "99", "102", "98"]
DAY_MS = timedelta(days=1) // timedelta(milliseconds=1)


def test_fifth_point_averages_to_exactly_100(store: EventStore) -> None:
    store.write(events(HUNDREDS))
    assert averages() == [None, None, None, None, Decimal(100)]
    assert str(averages()[-1]) == "100"


def test_row_says_what_the_event_says(store: EventStore) -> None:
    store.write([event(0, price="150.25")])
    row = SymbolAverage.objects.get()
    assert (row.symbol, str(row.price), row.provider, row.observed_at) == (
        "SIM-A",
        "150.25",
        "simulated",
        BEGIN,
    )
    assert row.window_size == 1
    assert row.created_at is not None


def test_averages_of_both_paths_have_the_same_digits(make_store: MakeStore) -> None:
    """16 decimals beside 12 integer digits: neither path rounds, neither adds zeros."""
    prices = [
        *("999999999999.9999999999999999", "0.0000000000000001", "123456789012.1234567890123456", "7", "8.5")
    ]
    fast, slow = events(prices, symbol="SIM-F"), events(prices, symbol="SIM-S")
    make_store().write(fast)
    for each in reversed(slow):
        make_store().write([each])
    assert_averages_right([*fast, *slow])
    texts = {str(average) for average in averages() if average is not None}
    assert texts == {"224691357805.52469135780246912"}


def test_batches_in_order_go_on_where_the_last_ended(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 20)])
    for each in stream:
        store.write([each])
    assert_averages_right(stream)


def test_duplicates_change_nothing(store: EventStore) -> None:
    stream = events(HUNDREDS + HUNDREDS)
    store.write(stream)
    before = list(SymbolAverage.objects.values())
    store.write(stream[3:7])
    store.write(stream + stream)
    assert list(SymbolAverage.objects.values()) == before


def test_late_event_changes_its_own_window_and_the_next_four(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 13)])
    late = stream.pop(5)
    store.write(stream)
    before = {row.event_id: row.tx for row in SymbolAverage.objects.all()}
    store.write([late])
    assert_averages_right([*stream, late])
    changed = [row.event_id for row in SymbolAverage.objects.all() if before.get(row.event_id) != row.tx]
    assert sorted(changed) == [late.event_id, *(each.event_id for each in stream[5:9])]


def test_first_points_that_come_late_fill_the_windows(store: EventStore) -> None:
    stream = events(HUNDREDS)
    for each in reversed(stream):
        store.write([each])
    assert_averages_right(stream)


def test_symbols_in_one_batch_do_not_mix(store: EventStore) -> None:
    first = events(HUNDREDS, symbol="SIM-A")
    second = events(["1", "2", "3", "4", "5", "6"], symbol="SIM-B")
    store.write([each for pair in itertools.zip_longest(first, second) for each in pair if each])
    assert_averages_right([*first, *second])


def test_windows_are_read_again_after_a_restart(make_store: MakeStore) -> None:
    stream = events([str(price) for price in range(1, 9)])
    make_store().write(stream[:7])
    make_store().write(stream[7:])
    assert_averages_right(stream)


def test_window_reaches_back_over_days(make_store: MakeStore) -> None:
    stream = [event(number * 3 * DAY_MS, price=str(number + 1)) for number in range(7)]
    for each in stream:
        make_store().write([each])
    assert_averages_right(stream)


def test_batch_of_many_symbols_is_stored(store: EventStore) -> None:
    symbols = [f"SIM-{number}" for number in range(600)]
    stream = [event(number, symbol=symbol) for number in range(2) for symbol in symbols]
    store.write(stream)
    store.write(stream[:700])
    assert_averages_right(stream)


def test_id_of_another_symbol_is_passed_over(store: EventStore) -> None:
    store.write([event(0, symbol="SIM-A")])
    stolen = PriceEvent(event(0).event_id, "SIM-B", Decimal(7), "simulated", None)
    store.write([stolen, event(1, symbol="SIM-A"), event(1, symbol="SIM-B")])
    assert_averages_right([event(0), event(1), event(1, symbol="SIM-B")])


def test_failed_batch_leaves_nothing_and_its_windows_are_dropped(store: EventStore) -> None:
    stream = events([*HUNDREDS, "103", "97"])
    store.write(stream[:5])
    unsound = event(6, symbol="SIM-Z", price="0")
    with pytest.raises(psycopg.errors.CheckViolation):
        store.write([stream[5], unsound], [dead_letter()])
    assert not DeadLetter.objects.exists()
    store.write(stream[6:])
    store.write(stream[5:6])
    assert_averages_right(stream)


def test_locked_symbol_is_tried_again_later(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers.averages.connection, "LOCK_TIMEOUT_MS", 200)
    stream = events(HUNDREDS)
    store.write(stream[:3])
    with held_lock("SIM-A"), pytest.raises(StoreUnavailableError, match="lock timeout"):
        store.write(stream[3:])
    store.write(stream[3:])
    assert_averages_right(stream)


def test_writer_that_stopped_in_the_middle_of_a_copy_is_ended(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's own time-out does not reach it: whoever needs its locks has to."""
    monkeypatch.setattr(consumers.averages.connection, "LOCK_TIMEOUT_MS", 200)
    monkeypatch.setattr(consumers.averages.connection, "TRANSACTION_TIMEOUT_MS", 500)
    monkeypatch.setattr(consumers.averages.connection, "OVERDUE_MS", 200)
    stream = events(HUNDREDS)
    store.write(stream[:3])

    def is_written() -> bool:
        try:
            store.write(stream[3:])
        except StoreUnavailableError:
            return False
        return True

    with closing(connect()) as stopped, stopped.cursor() as cursor:
        cursor.execute("BEGIN")
        lock_symbols(cursor, ["SIM-A"])
        stopped.pgconn.send_query(b"COPY symbol_averages FROM STDIN (FORMAT BINARY)")
        assert not is_written()
        wait_until(is_written)
    assert_averages_right(stream)


def test_batches_of_other_symbols_do_not_wait(make_store: MakeStore) -> None:
    with held_lock("SIM-A"):
        make_store().write([event(0, symbol="SIM-B")])
    assert_averages_right([event(0, symbol="SIM-B")])


def test_terminated_backend_is_survived(store: EventStore) -> None:
    stream = events(HUNDREDS)
    store.write(stream[:3])
    assert end_sessions() == 1
    with pytest.raises(StoreUnavailableError):
        store.write(stream[3:])
    store.write(stream[3:])
    assert_averages_right(stream)


def test_zombie_with_an_old_window_leaves_no_wrong_row(make_store: MakeStore) -> None:
    """The zombie's rows collide with nothing, so only a look at the table tells that it is behind."""
    stream = events([str(price) for price in range(1, 12)])
    zombie, owner = make_store(), make_store()
    zombie.write(stream[:5])
    owner.write(stream[5:8])
    zombie.write(stream[8:9])
    owner.write(stream[9:])
    assert_averages_right(stream)


def test_late_event_of_another_writer_is_noticed(make_store: MakeStore) -> None:
    stream = events([str(price) for price in range(1, 9)])
    one, other = make_store(), make_store()
    one.write([*stream[:3], *stream[4:7]])
    other.write(stream[3:4])
    one.write(stream[7:])
    assert_averages_right(stream)


def test_point_of_another_writer_before_all_that_is_remembered_is_noticed(make_store: MakeStore) -> None:
    stream = events([str(price) for price in range(1, 10)])
    one, other = make_store(), make_store()
    one.write(stream[2:8])
    other.write(stream[:1])
    one.write(stream[1:2])
    assert_averages_right([*stream[:8]])


def test_event_that_is_later_than_all_that_is_remembered_is_averaged(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 3 * MOST_POINTS)])
    late = [stream.pop(40), stream.pop(7)]
    for first in range(0, len(stream), 50):
        store.write(stream[first : first + 50])
    store.write([late[0], stream[3], event(999)])
    store.write([late[1], event(1000)])
    assert_averages_right([*stream, *late, event(999), event(1000)])


def test_late_events_within_what_is_remembered_read_nothing_again(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = events([str(price) for price in range(1, 41)])
    late = [stream.pop(35), stream.pop(20)]
    store.write(stream)
    monkeypatch.setattr(consumers.averages.statements, "read_last_points", None)
    monkeypatch.setattr(consumers.averages.statements, "_INSERT_LATE", None)
    store.write([*late, *stream[5:9]])
    assert_averages_right([*stream, *late])


def test_symbols_beyond_those_that_are_remembered_are_read_again(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers.averages.windows, "MOST_SERIES", 2)
    stream = [event(number, symbol=symbol, price=str(number)) for number in range(1, 20) for symbol in "ABC"]
    for first in range(0, len(stream), 10):
        store.write(stream[first : first + 10])
    assert_averages_right(stream)


def test_price_that_a_rebuild_changed_is_read_again(store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 9)])
    store.write(stream[:7])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE symbol_averages SET price = 70 WHERE event_id = %s", [stream[6].event_id])
        cursor.execute("SELECT nextval('averages_epoch')")
    store.write(stream[7:])
    assert averages()[-1] == Decimal(4 + 5 + 6 + 70 + 8) / 5


def test_writers_at_the_same_time_leave_no_wrong_row(make_store: MakeStore) -> None:
    """Each has every third event of three symbols, so that each is late in the others' windows."""
    stream = [
        event(number, symbol=symbol, price=str(number + 1))
        for number in range(90)
        for symbol in ("SIM-A", "SIM-B", "SIM-C")
    ]
    begin = threading.Barrier(3)

    def write(store: EventStore, share: list[PriceEvent]) -> None:
        begin.wait()
        for first in range(0, len(share), 4):
            store.write(share[first : first + 4])

    shares = [[each for number, each in enumerate(stream) if number // 3 % 3 == n] for n in range(3)]
    writers = [threading.Thread(target=write, args=(make_store(), share)) for share in shares]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert_averages_right(stream)


def test_dead_letters_are_kept_once(store: EventStore) -> None:
    store.write([], [dead_letter(1), dead_letter(2)])
    store.write([event(0)], [dead_letter(2), dead_letter(3)])
    assert sorted(DeadLetter.objects.values_list("offset", flat=True)) == [1, 2, 3]
    letter = DeadLetter.objects.get(offset=1)
    assert (letter.group, letter.key, bytes(letter.value or b""), letter.reason) == ("g", None, b"x", "test")


# Prices of SIM-B are in pence, and now and then in pounds.
CURRENCIES: dict[str, list[str | None]] = {"SIM-A": [None, None, None], "SIM-B": ["GBp", "GBP", "GBp"]}
POOL = [
    event(
        number,
        symbol=symbol,
        price=str(Decimal(7**number) / 10**number),
        currency=CURRENCIES[symbol][number % 3],
    )
    for symbol in CURRENCIES
    for number in range(10)
]
arrivals = st.lists(
    st.tuples(st.integers(0, 1), st.lists(st.sampled_from(POOL), min_size=1, max_size=8)), max_size=6
)


@given(order=st.permutations(POOL), cuts=st.sets(st.integers(1, len(POOL) - 1), max_size=5), extra=arrivals)
@settings(max_examples=examples(30))
def test_any_order_repetition_and_cut_by_two_writers_obeys_the_definition(
    make_store: MakeStore,
    order: list[PriceEvent],
    cuts: set[int],
    extra: list[tuple[int, list[PriceEvent]]],
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE symbol_averages")
    stores = [make_store(), make_store()]
    bounds = [0, *sorted(cuts), len(order)]
    batches = [(n % 2, order[a:b]) for n, (a, b) in enumerate(itertools.pairwise(bounds))]
    for writer, batch in itertools.chain(*itertools.zip_longest(extra, batches, fillvalue=(0, []))):
        stores[writer].write(batch)
        assert_averages_right(set_of_stored())
    assert_averages_right(POOL)
    for store in stores:
        store.close()


def set_of_stored() -> list[PriceEvent]:
    stored = set(SymbolAverage.objects.values_list("event_id", flat=True))
    return [each for each in POOL if each.event_id in stored]
