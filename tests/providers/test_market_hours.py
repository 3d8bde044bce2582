"""A day's price is dated at its close, and never in the future."""

from datetime import UTC, date, datetime

import pytest

from providers.market_hours import day_close

LONG_AFTER = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("symbol", "day", "close"),
    [
        ("IBM", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        ("IBM", date(2026, 7, 1), datetime(2026, 7, 1, 20, tzinfo=UTC)),
        ("BRK.B", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        ("BRK-A", date(2026, 11, 20), datetime(2026, 11, 20, 21, tzinfo=UTC)),
        ("RELIANCE.BSE", date(2026, 11, 20), datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)),
        ("SHOP.TRT", date(2026, 11, 20), datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_day_close_by_listing(symbol: str, day: date, close: datetime) -> None:
    assert day_close(symbol, day=day, received_at=LONG_AFTER) == close


@pytest.mark.parametrize("symbol", ["IBM", "RELIANCE.BSE"])
def test_day_close_is_not_later_than_the_answer(symbol: str) -> None:
    received_at = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
    assert day_close(symbol, day=date(2026, 11, 20), received_at=received_at) == received_at
