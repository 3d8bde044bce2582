"""When the day of a market ends."""

import re
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")

# Alpha Vantage and others put the exchange behind a dot (SHOP.TRT); a class of shares is no exchange.
_US_LISTING = re.compile(r"[A-Z0-9]+([.-][AB])?")


def day_close(symbol: str, *, day: date, received_at: datetime) -> datetime:
    """Give the UTC time at which a trading day's price was final, never later than `received_at`.

    16:00 in New York for a symbol without an exchange suffix, else the end of that day in UTC.
    """
    if _US_LISTING.fullmatch(symbol):
        close = datetime.combine(day, time(16), tzinfo=NEW_YORK).astimezone(UTC)
    else:
        close = datetime.combine(day, time(23, 59, 59), tzinfo=UTC)
    return min(close, received_at)
