"""What verify_averages tells apart, on the real database and topic."""

import json
import random
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from consumers.reading import lag
from consumers.repair import verify
from consumers.repair.rebuild import Progress, rebuild_averages
from consumers.repair.verify import Facts, Verdict, verify_averages
from prices.models import PricePoint, SymbolAverage
from tests.consumers.running import send
from tests.consumers.samples import BEGIN, EventStore, event, event_id, point, points_of

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


def points() -> list[PricePoint]:
    return list(PricePoint.objects.order_by("id"))


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
        lambda: row(7).update(currency="GBp"),
    ],
    ids=["average", "no average", "average before the fifth", "window size", "price", "currency"],
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


def test_row_of_another_currency_is_named_with_its_own(store: EventStore) -> None:
    for number in range(6):
        point(number, price=str(number + 1), currency="GBp")
    store.write([event(number, price=str(number + 1), currency="GBp") for number in range(6)])
    row(2).update(currency="GBP")
    (difference,) = verify_averages().differences
    assert difference.event_id == event_id(2)
    assert difference.stored == Facts("SIM-A", Decimal(3), 3, None, "GBP")
    assert difference.expected == Facts("SIM-A", Decimal(3), 3, None, "GBp")
    rebuild_averages()
    assert counts() == {"right": 6}


def test_averages_that_mix_currencies_are_wrong(store: EventStore) -> None:
    """As before there was a currency in the rows: prices in pence and pounds in one window."""
    for number, currency in enumerate(["GBp", "GBP", "GBp", "GBp", "GBP", "GBp"]):
        point(number, price="7210.5" if currency == "GBp" else "72.105", currency=currency)
    store.write([event(number, price=str(each.price)) for number, each in enumerate(points())])
    assert counts() == {"wrong": 6}
    rebuild_averages()
    assert counts() == {"right": 6}
    assert not SymbolAverage.objects.filter(average__isnull=False).exists()


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


def test_average_over_a_hole_is_wrong(store: EventStore) -> None:
    """A consumer that never got the message averaged the following rows without it."""
    for number, price in enumerate(PRICES):
        point(number, price=price)
    store.write([event(number, price=price) for number, price in enumerate(PRICES) if number != 1])
    verification = verify_averages()
    assert counts() == {"right": 3, "wrong": 4, "missing": 1}
    assert [each.event_id for each in verification.differences] == [event_id(n) for n in (1, 2, 3, 4, 5)]
    four = verification.differences[3]
    assert (four.stored, four.expected) == (
        Facts("SIM-A", Decimal(98), 4, None),
        Facts("SIM-A", Decimal(98), 5, Decimal(100)),
    )


def test_unpublished_point_is_pending_and_in_no_window(store: EventStore) -> None:
    for number, price in enumerate(PRICES):
        point(number, price=price, published=number != 3)
    store.write([event(number, price=price) for number, price in enumerate(PRICES) if number != 3])
    assert counts() == {"right": 7, "pending": 1}


@pytest.mark.usefixtures("consumed")
def test_points_published_after_what_waits_are_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "CATCH_UP_S", 0.0)
    point(8)
    PricePoint.objects.filter(id=event_id(8)).update(published_at=timezone.now())
    send([b"not consumed", b"neither"])
    verification = verify_averages()
    assert counts() == {"right": 8, "pending": 1}
    assert re.fullmatch(
        r"2 messages are still to be consumed: what was published after [-0-9]{10} [0-9:]{8}"
        r" may be one of them, and counts as pending\.",
        verification.note or "",
    )


@pytest.mark.usefixtures("consumed")
def test_point_published_long_before_what_waits_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "CATCH_UP_S", 0.0)
    point(8)
    send([b"not consumed"])
    assert counts() == {"right": 8, "missing": 1}


@pytest.mark.usefixtures("consumed")
@override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
def test_point_is_pending_while_kafka_is_away_and_missing_once_overtaken(
    monkeypatch: pytest.MonkeyPatch, store: EventStore
) -> None:
    monkeypatch.setattr(lag, "TIMEOUT_S", 0.3)
    point(8)
    verification = verify_averages()
    assert (verification.counts[Verdict.PENDING], verification.failed) == (1, 0)
    assert (verification.note or "").startswith("Kafka does not tell what is consumed (")
    hour_ms = 3_600_000
    later = event(hour_ms + 1)
    point(hour_ms + 1)
    store.write([later])
    assert counts()["missing"] == 1


def assert_parts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare a verification in one part with those in parts of few rows, which look back a little first."""
    at_once = verify_averages()
    for rows in (1, 2, 3, 7):
        monkeypatch.setattr(verify, "MOST_ROWS", rows)
        monkeypatch.setattr(verify, "LOOK_BACK", [timedelta(milliseconds=2 * rows)])
        in_parts = verify_averages()
        assert (in_parts.counts, in_parts.differences) == (at_once.counts, at_once.differences), rows
    monkeypatch.undo()


def test_parts_of_any_size_give_the_same(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows lost, altered, misfiled, over a hole, foreign, pruned; points that wait; two currencies."""
    chance = random.Random(7)
    for _round in range(6):
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE symbol_averages, price_points")
        numbers = range(30)
        pairs = [(number, symbol) for number in numbers for symbol in ("SIM-A", "SIM-B")]
        for number, symbol in pairs:
            if chance.random() < 0.9:
                point(
                    number,
                    symbol=symbol,
                    price=str(number + 1),
                    currency=chance.choice(["GBp", "GBp", None]),
                    published=chance.random() < 0.8,
                )
        currencies = dict(PricePoint.objects.values_list("id", "currency"))
        store.invalidate()
        store.write(
            [
                event(
                    number,
                    symbol=symbol,
                    price=str(number + 1),
                    currency=currencies.get(event_id(number, symbol=symbol)),
                )
                for number, symbol in pairs
                if chance.random() < 0.8
            ]
        )
        for number, symbol in chance.sample(pairs, 12):
            its_row = SymbolAverage.objects.filter(event_id=event_id(number, symbol=symbol))
            changes: list[Callable[[], object]] = [
                its_row.delete,
                partial(its_row.update, price=Decimal(7)),
                partial(its_row.update, symbol="SIM-B" if symbol == "SIM-A" else "SIM-A"),
                partial(its_row.update, average=None, window_size=3),
                partial(its_row.update, currency="EUR"),
            ]
            chance.choice(changes)()
        PricePoint.objects.filter(id__lt=event_id(chance.randrange(4))).delete()
        assert_parts_agree(monkeypatch)


@pytest.mark.usefixtures("consumed")
def test_hole_before_a_part_is_seen(monkeypatch: pytest.MonkeyPatch, store: EventStore) -> None:
    """Also where more points that wait lie between the hole and the part."""
    hole = point(8, price="50")
    for number in range(9, 15):
        point(number, published=False)
    point(20)
    store.write([event(20)])
    monkeypatch.setattr(verify, "MOST_ROWS", 1)
    found = verify_averages()
    assert [each.event_id for each in found.differences] == [hole.id, event_id(20)]
    assert found.counts[Verdict.PENDING] == 6


@pytest.mark.usefixtures("consumed")
def test_since_leaves_out_what_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    row(2).update(window_size=2)
    row(5).update(average=Decimal(1))
    assert counts(since=BEGIN + timedelta(milliseconds=3)) == {"right": 4, "wrong": 1}


def test_windows_that_reach_back_over_months_are_right(store: EventStore) -> None:
    numbers = [count * 40 * 86_400_000 for count in range(7)]
    for number in numbers:
        point(number)
    store.write([event(number) for number in numbers])
    assert counts(since=BEGIN + timedelta(days=239)) == {"right": 1}
    row(numbers[-1]).update(average=Decimal(99))
    assert counts(since=BEGIN + timedelta(days=239)) == {"wrong": 1}


@pytest.mark.usefixtures("consumed")
def test_progress_is_told_by_symbol() -> None:
    told: list[Progress] = []
    verify_averages(on_progress=told.append)
    assert told == [Progress(0, 1, 8)]


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
        "currency": None,
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [({"symbol": "no symbol"}, "--symbol takes"), ({"since": "2026-01-05T12:00:00"}, "--since takes")],
)
def test_command_refuses_wrong_usage(options: dict[str, str], says: str) -> None:
    with pytest.raises(CommandError, match=says) as caught:
        call_command("verify_averages", **options)
    assert caught.value.returncode == 2


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("verify_averages", "--help")
    assert "manage.py verify_averages --symbol AAPL --since 2026" in capsys.readouterr().out


def test_query_of_the_parts_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many partitions its planning takes longer than all else."""
    monkeypatch.setattr(verify, "MOST_ROWS", 8)
    plans: list[tuple[int, int]] = []

    def look(_: Progress) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements")
            plans.extend(cursor.fetchall())

    for number in range(30):
        point(number)
    connection.close()
    assert verify_averages(on_progress=look).looked_at == 30
    # Before each part but the first there are fewer rows than a window has: all that is before is asked for.
    assert plans == [(queries, 0) for queries in (1, 3, 5, 7)]
    assert connection.connection.prepare_threshold is None


def test_command_says_that_there_was_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("verify_averages", "--symbol", "NOPE")
    assert capsys.readouterr().out.endswith("\n\nNo stored price or average was there to compare.\n")
