"""Prices that came a short while ago, so that nobody asks for them again."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.utils import timezone

from prices.ids import first_id_at, first_id_received
from prices.models import Outcome, RawMarketData
from providers.base import ErrorKind, ProviderError
from providers.http import timed_out

# A symbol that had a price so lately is known, whatever a provider says once.
KNOWN_FOR = timedelta(days=1)

_LAST_RECEIVED = """
    SELECT wanted.symbol, last.received_at
    FROM unnest(%s::text[]) wanted (symbol)
    CROSS JOIN LATERAL (
        SELECT received_at FROM price_points point
        WHERE point.symbol = wanted.symbol AND point.provider = %s AND point.id >= %s
        ORDER BY id DESC LIMIT 1
    ) last
"""


def received_since(provider: str, symbols: Sequence[str], *, since: datetime) -> dict[str, datetime]:
    """Give when the last price of each symbol came from the provider, for those that came since a moment."""
    received = _last_received(provider, symbols, first_id=first_id_received(since))
    return {symbol: moment for symbol, moment in received.items() if moment >= since}


def without_recent_price(provider: str, symbols: Sequence[str]) -> list[str]:
    """Give those of the symbols that had no price from the provider for a day."""
    if not symbols:
        return []
    known = _last_received(provider, symbols, first_id=first_id_at(timezone.now() - KNOWN_FOR))
    return [symbol for symbol in symbols if symbol not in known]


def last_error(provider: str, symbol: str, *, since: datetime) -> ProviderError | None:
    """Give what the provider last said of the symbol since a moment, if that was an error."""
    # Of an answer for several symbols the row does not tell what was said of each.
    answers = RawMarketData.objects.filter(
        provider=provider, symbols=[symbol], id__gte=first_id_received(since)
    )
    last = answers.filter(received_at__gte=since).order_by("-id").first()
    if last is None or last.outcome == Outcome.QUOTE:
        return None
    # Known by its message, which is this service's own: the row has no other mark of it.
    time_out = timed_out(settings.PROVIDER_TIMEOUT_S)
    if last.message == time_out.message:
        return time_out
    return ProviderError(kind=ErrorKind(last.outcome), message=last.message)


def _last_received(provider: str, symbols: Sequence[str], *, first_id: UUID) -> dict[str, datetime]:
    with connection.cursor() as cursor:
        cursor.execute(_LAST_RECEIVED, [list(symbols), provider, first_id])
        return dict(cursor.fetchall())
