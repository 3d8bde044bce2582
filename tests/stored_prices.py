"""Five prices of SIM-ACME, with all that is stored of them."""

from datetime import timedelta
from decimal import Decimal

from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.models import PricePoint, RawMarketData, SymbolAverage

PRICES = ["101.25", "101.5", "100.75", "102", "102.50"]


def store_prices() -> None:
    """Store five prices of a symbol, as polls of some seconds ago would have."""
    now = database_now()
    # All of one minute, so of one bar.
    now -= timedelta(seconds=now.second + 1) if now.second < 7 else timedelta(0)
    for number, (point_id, raw_id) in enumerate(zip(new_ids(5), new_ids(5), strict=True), start=1):
        price, came = PRICES[number - 1], now - timedelta(seconds=6 - number)
        common = {"provider": "simulated", "received_at": came}
        RawMarketData.objects.create(
            id=raw_id,
            symbols=["SIM-ACME"],
            url="simulated://quotes?symbols=SIM-ACME",
            status=200,
            outcome="quote",
            payload={"quotes": [{"symbol": "SIM-ACME", "price": price, "currency": "USD"}]},
            latency_ms=0.4,
            **common,
        )
        point = PricePoint.objects.create(
            id=point_id,
            symbol="SIM-ACME",
            price=Decimal(price),
            currency="USD",
            observed_at=came,
            precision="second",
            raw=raw_id,
            published_at=came,
            **common,
        )
        SymbolAverage.objects.create(
            event_id=point.id,
            symbol=point.symbol,
            price=point.price,
            currency=point.currency,
            average=Decimal("101.6") if number == 5 else None,
            window_size=number,
            provider=point.provider,
            observed_at=came,
        )
