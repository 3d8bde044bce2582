"""Prices that came a short while ago, so that nobody asks for them again."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models.functions import Now

from prices.clock import database_now
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, IS_OF_TIME_UNTIL_NOW, first_id_at, first_id_received
from prices.models import Outcome, RawMarketData
from providers.base import ErrorKind, ProviderError, ProviderTimeoutError
from providers.http.network import is_time_out

# A symbol that had a price so lately is known, whatever a provider says once.
KNOWN_FOR = timedelta(days=1)

# The last few by their ids: once a clock was set back, those of what was received before go on for a while.
_LAST_RECEIVED = f"""
    SELECT wanted.symbol, max(last.received_at)
    FROM unnest(%s::text[]) wanted (symbol)
    CROSS JOIN LATERAL (
        SELECT received_at FROM price_points point
        WHERE point.symbol = wanted.symbol AND point.provider = %s AND point.id >= %s
          AND {IS_OF_TIME_UNTIL_NOW}
        ORDER BY id DESC LIMIT 5
    ) last
    GROUP BY wanted.symbol
"""  # noqa: S608 - no outside text


def received_since(provider: str, symbols: Sequence[str], *, since: datetime) -> dict[str, datetime]:
    """Return when the last price of each symbol came from the provider, where that was since a moment."""
    received = _last_received(provider, symbols, first_id=first_id_received(since))
    return {symbol: moment for symbol, moment in received.items() if moment >= since}


def without_recent_price(provider: str, symbols: Sequence[str]) -> list[str]:
    """Return those of the symbols that had no price from the provider for a day."""
    if not symbols:
        return []
    known = _last_received(provider, symbols, first_id=first_id_at(database_now() - KNOWN_FOR))
    return [symbol for symbol in symbols if symbol not in known]


def last_error(provider: str, symbol: str, *, since: datetime) -> ProviderError | None:
    """Return what the provider last said of the symbol since a moment, if that was an error."""
    # Of an answer for several symbols the row does not tell what was said of each.
    answers = RawMarketData.objects.filter(
        provider=provider, symbols=[symbol], id__gte=first_id_received(since)
    )
    received = (since, Now() + CLOCKS_AGREE_WITHIN)
    last = answers.filter(received_at__range=received).order_by("-received_at", "-id").first()
    if last is None or last.outcome == Outcome.QUOTE:
        return None
    # Known by its message, which is this service's own: the row has no other mark of it.
    error = ProviderTimeoutError if is_time_out(last.message) else ProviderError
    return error(kind=ErrorKind(last.outcome), message=last.message)


def _last_received(provider: str, symbols: Sequence[str], *, first_id: UUID) -> dict[str, datetime]:
    with connection.cursor() as cursor:
        cursor.execute(_LAST_RECEIVED, [list(symbols), provider, first_id])
        return dict(cursor.fetchall())
