"""Batches prepared before the one before them is stored: nothing is believed that did not happen."""

import itertools
import threading
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

import consumers.averages.connection
import consumers.averages.store
from consumers.averages.store import PreparedBatch, StoreUnavailableError
from prices.models import SymbolAverage
from prices.publishing.events import PriceEvent
from tests.consumers.locks import held_lock
from tests.consumers.samples import EventStore, assert_averages_right, event, events
from tests.consumers.sessions import end_sessions
from tests.examples import examples

pytestmark = pytest.mark.django_db(transaction=True)
STREAM = events([str(price) for price in range(1, 41)])


def prepared(store: EventStore, batch: list[PriceEvent], *, speculative: bool = False) -> PreparedBatch:
    made = store.prepare(batch, speculative=speculative)
    assert made is not None
    return made


def test_plan_made_ahead_goes_on_where_the_one_before_ends(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(STREAM[:10])
    first = prepared(store, STREAM[10:20])
    second = prepared(store, [*STREAM[20:30], STREAM[5], STREAM[18]], speculative=True)
    monkeypatch.setattr(consumers.averages.store, "read_lookbacks", None)
    store.write_prepared(first)
    store.write_prepared(second)
    assert_averages_right(STREAM[:30])


def test_late_event_in_a_batch_prepared_early_changes_rows_that_were_not_stored_yet(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = STREAM[14]
    store.write(STREAM[:10])
    first = prepared(store, [each for each in STREAM[10:20] if each is not late])
    second = prepared(store, [late, *STREAM[20:22]], speculative=True)
    monkeypatch.setattr(consumers.averages.store, "read_lookbacks", None)
    store.write_prepared(first)
    store.write_prepared(second)
    assert_averages_right(STREAM[:22])


def test_nothing_is_prepared_after_a_batch_of_which_too_little_is_cached(store: EventStore) -> None:
    first = prepared(store, STREAM[:10])
    assert store.prepare(STREAM[10:20], speculative=True) is None
    store.write_prepared(first)
    second = prepared(store, STREAM[10:20])
    third = prepared(store, STREAM[20:30], speculative=True)
    store.write_prepared(second)
    store.write_prepared(third)
    assert_averages_right(STREAM[:30])


def test_batch_prepared_after_a_failed_one_is_prepared_anew(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers.averages.connection, "LOCK_TIMEOUT_MS", 200)
    store.write(STREAM[:10])
    first = prepared(store, STREAM[10:20])
    prepared(store, STREAM[20:30], speculative=True)
    with held_lock("SIM-A"), pytest.raises(StoreUnavailableError):
        store.write_prepared(first)
    assert store.prepare(STREAM[20:30], speculative=True) is None
    store.write(STREAM[10:20])
    store.write(STREAM[20:30])
    assert_averages_right(STREAM[:30])


def test_plan_made_on_a_batch_that_failed_is_right_though_it_is_written(store: EventStore) -> None:
    """As many rows as the failed batch had are there from another writer, so that counting tells nothing."""
    store.write(STREAM[:10])
    first, second = prepared(store, STREAM[10:12]), prepared(store, STREAM[14:20], speculative=True)
    assert end_sessions() == 1
    with pytest.raises(StoreUnavailableError):
        store.write_prepared(first)
    other = EventStore()
    other.write(STREAM[12:14])
    other.close()
    store.write_prepared(second)
    assert_averages_right([*STREAM[:10], *STREAM[12:20]])
    store.write(STREAM[10:12])
    assert_averages_right(STREAM[:20])


def test_batch_prepared_after_an_id_that_is_anothers_is_right(store: EventStore) -> None:
    """The batch before takes the slow path, and one of its events is passed over."""
    store.write([*STREAM[:10], event(11, symbol="SIM-B")])
    stolen = PriceEvent(event(11, symbol="SIM-B").event_id, "SIM-A", STREAM[0].price, "simulated", None)
    first = prepared(store, [*STREAM[10:14], stolen])
    second = prepared(store, STREAM[14:20], speculative=True)
    store.write_prepared(first)
    store.write_prepared(second)
    assert_averages_right([*STREAM[:20], event(11, symbol="SIM-B")])


def test_another_writer_between_two_batches_is_noticed(make_store: Callable[[], EventStore]) -> None:
    store, other = make_store(), make_store()
    store.write(STREAM[:10])
    first = prepared(store, STREAM[10:14])
    second = prepared(store, STREAM[16:20], speculative=True)
    store.write_prepared(first)
    other.write(STREAM[14:16])
    store.write_prepared(second)
    assert_averages_right(STREAM[:20])


def test_rebuild_between_two_batches_is_noticed(store: EventStore) -> None:
    store.write(STREAM[:10])
    first, second = prepared(store, STREAM[10:14]), prepared(store, STREAM[14:20], speculative=True)
    store.write_prepared(first)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE symbol_averages SET price = 140 WHERE event_id = %s", [STREAM[13].event_id])
        cursor.execute("SELECT nextval('averages_epoch')")
    store.write_prepared(second)
    row = SymbolAverage.objects.get(event_id=STREAM[14].event_id)
    assert row.average == Decimal("38.2")


def test_after_a_surprise_batches_are_prepared_early_again(store: EventStore) -> None:
    store.write(STREAM[:10])
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('averages_epoch')")
    store.write(STREAM[10:20])
    second = prepared(store, STREAM[20:25])
    third = prepared(store, STREAM[25:30], speculative=True)
    assert third.averaged is not None
    store.write_prepared(second)
    store.write_prepared(third)
    assert_averages_right(STREAM[:30])


POOL = [
    event(number, symbol=symbol, price=str(number * 7 % 11 + 1)) for number in range(14) for symbol in "AB"
]
few = st.lists(st.sampled_from(POOL), max_size=3)
batches = st.lists(st.lists(st.sampled_from(POOL), min_size=1, max_size=7), min_size=1, max_size=12)


@given(batches=batches, others=st.dictionaries(st.integers(0, 11), few))
@settings(max_examples=examples(40))
def test_any_batches_prepared_during_a_write_obey_the_definition(
    make_store: Callable[[], EventStore],
    batches: list[list[PriceEvent]],
    others: dict[int, list[PriceEvent]],
) -> None:
    """One thread prepares and another one writes, as the loop does it; a second writer comes between."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE symbol_averages")
    store, other = make_store(), make_store()
    writing: threading.Thread | None = None
    for number, batch in enumerate(batches):
        made = store.prepare(batch, speculative=writing is not None)
        if writing is not None:
            writing.join()
        made = made or prepared(store, batch)
        other.write(others.get(number, []))
        writing = threading.Thread(target=store.write_prepared, args=(made,))
        writing.start()
    if writing is not None:
        writing.join()
    assert_averages_right(set(itertools.chain(*batches, *(others.get(n, []) for n in range(len(batches))))))
    for each in (store, other):
        each.close()
