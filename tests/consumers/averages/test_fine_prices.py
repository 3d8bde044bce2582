"""Coins worth less than 0.00001 keep every digit, from the point to the answer."""

from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from rest_framework.test import APIClient

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.repair.verify import Verdict, verify_averages
from prices.models import SymbolAverage
from tests.consumers.running import running
from tests.consumers.samples import event_id, point, produce
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
FINEST = "0.0000000000000001"
LARGEST = "999999999999.9999999999999999"


@pytest.mark.usefixtures("topic", "heartbeats")
def test_sixteen_decimals_reach_the_answer(api: APIClient) -> None:
    prices = ["0.0000000123456789", FINEST, LARGEST, "0.000007", "0.0000000123456788"]
    points = [point(number, price=price) for number, price in enumerate(prices)]
    with running(AverageHandler(AverageStore())):
        produce(points)
        wait_until(lambda: SymbolAverage.objects.count() == len(points))
    content = api.get("/averages?symbol=SIM-A").content
    assert [f'"price":{price},'.encode() in content for price in prices] == [True] * 5
    assert b'"average":200000000000.00000140493827154,' in content
    assert verify_averages().counts[Verdict.RIGHT] == 5


def test_seventeen_decimals_are_refused() -> None:
    for number, price in enumerate((FINEST, LARGEST)):
        point(number, price=price)
    with pytest.raises(IntegrityError, match="price_points_price_sound"), transaction.atomic():
        point(9, price="0.00000000000000001")
    with pytest.raises(IntegrityError, match="symbol_averages_price_sound"):
        SymbolAverage.objects.create(
            event_id=event_id(9),
            symbol="SIM-A",
            price=Decimal("0.00000000000000001"),
            window_size=1,
            provider="simulated",
        )
