"""Prices in pence and in pounds of one symbol have averages of their own, from the topic to the answer."""

from decimal import Decimal

import pytest
from rest_framework.test import APIClient

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.repair.verify import Verdict, verify_averages
from prices.models import PricePoint, SymbolAverage
from tests.consumers.running import running
from tests.consumers.samples import point, produce
from tests.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("topic", "heartbeats")]
PENCE, POUNDS = "GBp", "GBP"


def stored_points() -> list[PricePoint]:
    """Store points in pence, in pounds between them, and one without a currency."""
    pence = [point(number * 10, price=f"{7200 + number}.5", currency=PENCE) for number in range(6)]
    pounds = [point(number * 10 + 5, price=f"72.10{number}", currency=POUNDS) for number in range(4)]
    return [*pence, *pounds, point(100, price="72")]


def test_currencies_do_not_mix(api: APIClient) -> None:
    points = stored_points()
    with running(AverageHandler(AverageStore())):
        produce(points)
        wait_until(lambda: SymbolAverage.objects.count() == len(points))
        late = point(3, price="7199.5", currency=PENCE)
        produce([late])
        wait_until(lambda: SymbolAverage.objects.count() == len(points) + 1)
    found = verify_averages()
    assert found.counts == dict.fromkeys(Verdict, 0) | {Verdict.RIGHT: len(points) + 1}
    rows = api.get("/averages?symbol=SIM-A&limit=20").json()["results"]
    assert {row["currency"] for row in rows} == {PENCE, POUNDS, None}
    averages = [(row["currency"], row["average"]) for row in rows if row["average"] is not None]
    assert averages == [(PENCE, 7203.5), (PENCE, 7202.3), (PENCE, 7201.5)]


def test_a_new_currency_begins_a_new_window() -> None:
    points = [point(number, price="100", currency=POUNDS) for number in range(5)]
    points += [point(number, price="10000", currency=PENCE) for number in range(5, 10)]
    with running(AverageHandler(AverageStore())):
        produce(points)
        wait_until(lambda: SymbolAverage.objects.count() == len(points))
    rows = SymbolAverage.objects.order_by("event_id").values_list("window_size", "average")
    assert list(rows) == [
        *[(size, None) for size in range(1, 5)],
        (5, Decimal(100)),
        *[(size, None) for size in range(1, 5)],
        (5, Decimal(10000)),
    ]


def test_providers_of_one_currency_share_a_window() -> None:
    """Headers differ in the precision of the time: Alpha Vantage tells a day, Finnhub a second."""
    points = [point(number) for number in range(5)]
    for each, precision in zip(points, ["day", "second", "unknown", "day", "second"], strict=True):
        each.precision = precision
    with running(AverageHandler(AverageStore())):
        produce(points)
        wait_until(lambda: SymbolAverage.objects.count() == len(points))
    sizes = SymbolAverage.objects.order_by("event_id").values_list("window_size", flat=True)
    assert list(sizes) == [1, 2, 3, 4, 5]
