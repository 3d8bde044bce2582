"""The newest average of each of several symbols, in each of its currencies."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from django.db import connection

from prices.database.newest import LOOK_BACK
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at

# A currency of which there was no price for so long is not the symbol's any more.
CURRENCIES_WITHIN = LOOK_BACK[-1]
_FIRST_ID = UUID(int=0)

_OF_SYMBOLS: LiteralString = """
SELECT wanted.symbol, {line}
FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
CROSS JOIN LATERAL ({newest}) AS row
ORDER BY row.event_id DESC
"""
_BOUNDS: LiteralString = "event_id >= %(lowest)s AND event_id < %(end)s"
# From one currency to the next by the index of windows, however many rows lie between.
_OF_EACH_CURRENCY: LiteralString = f"""
    WITH RECURSIVE found (currency) AS (
        SELECT (SELECT min(coalesce(currency, '')) FROM symbol_averages
                WHERE symbol = wanted.symbol AND {_BOUNDS})
        UNION ALL
        SELECT (SELECT min(coalesce(currency, '')) FROM symbol_averages
                WHERE symbol = wanted.symbol AND coalesce(currency, '') > found.currency AND {_BOUNDS})
        FROM found WHERE found.currency IS NOT NULL
    )
    SELECT last.* FROM found
    CROSS JOIN LATERAL (
        SELECT * FROM symbol_averages
        WHERE symbol = wanted.symbol AND coalesce(currency, '') = found.currency AND {_BOUNDS}
        ORDER BY event_id DESC LIMIT 1
    ) AS last
    WHERE found.currency IS NOT NULL
"""  # noqa: S608 - no outside text
_OF_ANY_CURRENCY: LiteralString = f"""
    SELECT * FROM symbol_averages WHERE symbol = wanted.symbol AND {_BOUNDS} ORDER BY event_id DESC LIMIT 1
"""  # noqa: S608 - no outside text


def newest_averages(symbols: Sequence[str], line: str, *, now: datetime) -> dict[str, list[str]]:
    """Return each symbol's newest averages as the SQL of `line` writes them; who has none is left out.

    Of each currency of which it had a price within CURRENCIES_WITHIN, the newest first; where there was none
    for so long, the newest of all. What is of a time still to come by `now` is left out.
    """
    values = {"lowest": first_id_at(now - CURRENCIES_WITHIN), "end": first_id_at(now + CLOCKS_AGREE_WITHIN)}
    found = _read(_OF_EACH_CURRENCY, line, values | {"symbols": list(symbols)})
    left = [symbol for symbol in symbols if symbol not in found]
    if left:
        # A plan for every partition takes longer than the rest: only for those that have nothing near.
        found |= _read(_OF_ANY_CURRENCY, line, values | {"symbols": left, "lowest": _FIRST_ID})
    return found


def _read(newest: LiteralString, line: str, values: dict[str, Any]) -> dict[str, list[str]]:
    statement = _OF_SYMBOLS.format(line=line.replace("%", "%%"), newest=newest)
    found: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        for symbol, text in cursor.fetchall():
            found.setdefault(symbol, []).append(text)
    return found
