"""What verify_averages tells apart, on the real database and topic."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from consumers import lag, verify
from consumers.verify import Facts, Verdict, verify_averages
from prices.models import PricePoint, SymbolAverage
from tests.consumers.running import send
from tests.consumers.samples import EventStore, event, event_id, point, points_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic")]
PRICES = ["100", "101", "99", "102", "98", "103", "97.5", "104"]


@pytest.fixture
def consumed(store: EventStore) -> EventStore:
    """Eight points of SIM-A, all published and averaged."""
    for number, price in enumerate(PRICES):
        point(number, price=price)
    store.write([event(number, price=price) for number, price in enumerate(PRICES)])
    return store


def counts(**arguments: Any) -> dict[str, int]:
    found = verify_averages(**arguments).counts
    return {verdict.value: count for verdict, count in found.items() if count}


def row(number: int) -> Any:
    return SymbolAverage.objects.filter(event_id=event_id(number))


@pytest.mark.usefixtures("consumed")
def test_consumed_points_are_right() -> None:
    verification = verify_averages()
    assert verification.counts == dict.fromkeys(Verdict, 0) | {Verdict.RIGHT: 8}
    assert (verification.failed, verification.differences, verification.note) == (0, [], None)


def test_empty_tables_are_right() -> None:
    assert counts() == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda: row(5).update(average=Decimal("100.61")),
        lambda: row(5).update(average=None, window_size=4),
        lambda: row(1).update(average=Decimal("100.5"), window_size=5),
        lambda: row(1).update(window_size=3),
        lambda: row(7).update(price=Decimal(105)),
    ],
    ids=["average", "no average", "average before the fifth", "window size", "price"],
)
@pytest.mark.usefixtures("consumed")
def test_altered_row_is_wrong(change: Callable[[], int]) -> None:
    assert change() == 1
    assert counts() == {"right": 7, "wrong": 1}


@pytest.mark.usefixtures("consumed")
def test_wrong_row_is_named_with_what_it_should_be() -> None:
    row(4).update(average=Decimal(1))
    (difference,) = verify_averages().differences
    assert (difference.verdict, difference.symbol, difference.event_id) == ("wrong", "SIM-A", event_id(4))
    assert difference.stored == Facts("SIM-A", Decimal(98), 5, Decimal(1))
    assert difference.expected == Facts("SIM-A", Decimal(98), 5, Decimal(100))


@pytest.mark.usefixtures("consumed")
def test_row_of_another_symbol_is_wrong() -> None:
    row(7).update(symbol="SIM-B", average=None, window_size=1)
    assert counts() == {"right": 7, "wrong": 1}


@pytest.mark.usefixtures("consumed")
def test_row_of_another_symbol_is_named_with_its_own() -> None:
    row(7).update(symbol="SIM-B", average=None, window_size=1)
    (difference,) = verify_averages().differences
    assert difference.stored == Facts("SIM-B", Decimal(104), 1, None)
    assert difference.expected == Facts("SIM-A", Decimal(104), 1, None)


def test_first_failures_of_all_symbols_are_named_in_the_order_of_their_ids(store: EventStore) -> None:
    symbols = ["SIM-B", "SIM-A"]
    stream = [event(number, symbol=symbol) for number in range(12) for symbol in symbols]
    for number in range(12):
        points_of(number, dict.fromkeys(symbols, "100"))
    store.write(stream)
    SymbolAverage.objects.update(window_size=4, average=None)
    failed = sorted(
        each.event_id for each in stream if each.event_id not in {event_id(3), event_id(3, symbol="SIM-B")}
    )
    verification = verify_averages()
    assert verification.failed == len(failed) == 22
    assert [each.event_id for each in verification.differences] == failed[:20]


@pytest.mark.usefixtures("consumed")
def test_point_that_differs_from_its_event_makes_its_windows_wrong() -> None:
    PricePoint.objects.filter(id=event_id(6)).update(price=Decimal(1))
    assert counts() == {"right": 6, "wrong": 2}


@pytest.mark.usefixtures("consumed")
def test_lost_row_is_missing_and_those_after_it_are_right() -> None:
    row(3).delete()
    verification = verify_averages()
    assert counts() == {"right": 7, "missing": 1}
    assert [each.event_id for each in verification.differences] == [event_id(3)]


def test_point_that_was_never_averaged_is_missing_once_all_is_consumed(store: EventStore) -> None:
    """The rows after it were averaged without it, as the consumer had to."""
    for number, price in enumerate(PRICES):
        point(number, price=price)
    store.write([event(number, price=price) for number, price in enumerate(PRICES) if number != 3])
    assert counts() == {"right": 7, "missing": 1}


def test_unpublished_point_is_pending_and_in_no_window(store: EventStore) -> None:
    for number, price in enumerate(PRICES):
        point(number, price=price, published=number != 3)
    store.write([event(number, price=price) for number, price in enumerate(PRICES) if number != 3])
    assert counts() == {"right": 7, "pending": 1}


@pytest.mark.usefixtures("consumed")
def test_points_are_pending_while_messages_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "CATCH_UP_S", 0.0)
    point(8)
    send([b"not consumed", b"neither"])
    verification = verify_averages()
    assert counts() == {"right": 8, "pending": 1}
    assert verification.note == "2 messages are still to be consumed: missing points count as pending."


@pytest.mark.usefixtures("consumed")
@override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
def test_points_are_pending_while_kafka_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "TIMEOUT_S", 0.3)
    point(8)
    verification = verify_averages()
    assert (verification.counts[Verdict.PENDING], verification.failed) == (1, 0)
    assert "Kafka does not tell what is consumed" in (verification.note or "")


def test_foreign_events_take_part_and_are_no_error(store: EventStore) -> None:
    for number, price in enumerate(PRICES):
        if number not in (0, 3):
            point(number, price=price)
    store.write([event(number, price=price) for number, price in enumerate(PRICES)])
    point(-1, published=False)
    assert counts() == {"right": 6, "foreign": 2, "pending": 1}


@pytest.mark.usefixtures("consumed")
def test_altered_average_of_a_foreign_event_is_wrong() -> None:
    PricePoint.objects.filter(id=event_id(5)).delete()
    assert counts() == {"right": 7, "foreign": 1}
    row(5).update(average=Decimal(1))
    assert counts() == {"right": 7, "wrong": 1}


@pytest.mark.usefixtures("consumed")
def test_rows_with_pruned_inputs_are_unverifiable() -> None:
    PricePoint.objects.filter(id__lt=event_id(2)).delete()
    row(1).update(price=Decimal(7))
    row(7).update(average=Decimal(1))
    assert counts() == {"unverifiable": 6, "right": 1, "wrong": 1}


@pytest.mark.usefixtures("consumed")
def test_one_symbol_alone_is_looked_at(store: EventStore) -> None:
    point(0, symbol="SIM-B")
    store.write([event(0, symbol="SIM-B")])
    row(5).update(average=Decimal(1))
    assert counts(symbol="SIM-B") == {"right": 1}
    assert counts(symbol="SIM-A") == {"right": 7, "wrong": 1}


@pytest.mark.usefixtures("consumed")
def test_command_reports_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("verify_averages", symbol="sim-a")
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert {line[0]: line[1] for line in lines} == dict.fromkeys(Verdict, "0") | {"right": "8"}
    meanings = {line[0]: line[2] for line in lines}
    assert meanings["missing"] == "the price was published and consumed, but there is no row"
    assert len(set(meanings.values())) == len(Verdict)


@pytest.mark.usefixtures("consumed")
def test_command_names_the_altered_row_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    row(4).update(average=Decimal(1))
    with pytest.raises(CommandError, match="1 averages are wrong or missing") as caught:
        call_command("verify_averages")
    assert caught.value.returncode == 1
    named = capsys.readouterr().out.splitlines()[-1]
    assert named.split()[:3] == ["wrong", "SIM-A", str(event_id(4))]
    assert "average 1 of 5, price 98" in named
    assert "average 100 of 5, price 98" in named


def test_command_names_twenty_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(25):
        point(number)
    with pytest.raises(CommandError, match="25 averages"):
        call_command("verify_averages")
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("missing  SIM-A") for line in printed) == 20
    assert printed[-1] == "and 5 more"


@pytest.mark.usefixtures("consumed")
def test_command_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    row(6).update(average=Decimal(1))
    with pytest.raises(CommandError):
        call_command("verify_averages", json=True)
    report = json.loads(capsys.readouterr().out, parse_float=Decimal)
    assert (report["right"], report["wrong"], report["missing"], report["note"]) == (7, 1, 0, None)
    (difference,) = report["differences"]
    assert difference["event_id"] == str(event_id(6))
    assert difference["expected"] == {
        "symbol": "SIM-A",
        "price": Decimal("97.5"),
        "window_size": 5,
        "average": Decimal("99.9"),
    }


def test_command_refuses_what_is_no_symbol() -> None:
    with pytest.raises(CommandError, match="--symbol takes") as caught:
        call_command("verify_averages", symbol="no symbol")
    assert caught.value.returncode == 2
