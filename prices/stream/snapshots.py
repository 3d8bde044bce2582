"""What clients are told of each symbol when they begin: its newest average."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import connection

from prices.database.uuid7 import first_id_received
from prices.history.newest_averages import CURRENCIES_WITHIN, newest_averages
from prices.history.tables import AVERAGES
from prices.models import PricePoint
from prices.stream.events import StoredRow
from prices.stream.reading import ROW_LINE

# From one symbol to the next by an index.
_SYMBOLS = """
WITH RECURSIVE found (symbol) AS (
    (SELECT symbol FROM symbol_averages WHERE event_id >= %(lowest)s ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (SELECT symbol FROM symbol_averages WHERE symbol > found.symbol AND event_id >= %(lowest)s
            ORDER BY symbol LIMIT 1)
    FROM found WHERE found.symbol IS NOT NULL
) SELECT symbol FROM found WHERE symbol IS NOT NULL
"""


class _Told(msgspec.Struct):
    event_id: UUID
    symbol: str
    provider: str
    observed_at: datetime | None


def read_snapshots(symbols: Sequence[str] | None, *, now: datetime) -> list[StoredRow]:
    """Return each symbol's newest row, in the order asked for; a row of nulls where there is none.

    None for the symbols that had an average within CURRENCIES_WITHIN. A symbol with prices in several
    currencies has a row of each.
    """
    names = _read_symbols(now) if symbols is None else symbols
    found = newest_averages(names, AVERAGES, ROW_LINE, now=now)
    lines = [row.text for name in names for row in found.get(name, ())]
    rows = [(line, msgspec.json.decode(line, type=_Told)) for line in lines]
    qualities = _read_qualities([told.event_id for _line, told in rows])
    stored: dict[str, list[StoredRow]] = {name: [] for name in names}
    for line, told in rows:
        precision, received_at = qualities.get(told.event_id, (None, None))
        stored[told.symbol].append(
            StoredRow(told.symbol, told.provider, told.observed_at, precision, received_at, line)
        )
    return [row for name in names for row in stored[name] or [_empty_row(name)]]


def _empty_row(symbol: str) -> StoredRow:
    nothing = dict.fromkeys([*(column.name for column in AVERAGES.columns), "version"])
    line = msgspec.json.encode(nothing | {"symbol": symbol}).decode()
    return StoredRow(symbol, "", None, None, None, line)


def _read_symbols(now: datetime) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_SYMBOLS, {"lowest": first_id_received(now - CURRENCIES_WITHIN)})
        return [symbol for (symbol,) in cursor.fetchall()]


def _read_qualities(ids: Sequence[UUID]) -> dict[UUID, tuple[str, datetime]]:
    if not ids:
        return {}
    points = PricePoint.objects.filter(id__in=ids, id__range=(min(ids), max(ids)))
    return {
        row_id: (precision, received_at)
        for row_id, precision, received_at in points.values_list("id", "precision", "received_at")
    }
