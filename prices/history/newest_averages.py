"""The newest average of each of several symbols, in each of its currencies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from prices.database.newest import LOOK_BACK
from prices.database.queries import Fetch, fetch
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at
from prices.history.tables import Table

# A currency of which there was no price for so long is not the symbol's any more.
CURRENCIES_WITHIN = LOOK_BACK[-1]
_FIRST_ID = UUID(int=0)

_OF_SYMBOLS: LiteralString = """
SELECT wanted.symbol, {line}, row.event_id || ' ' || {version}
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
        SELECT *, xmin AS written_by FROM symbol_averages
        WHERE symbol = wanted.symbol AND coalesce(currency, '') = found.currency AND {_BOUNDS}
        ORDER BY event_id DESC LIMIT 1
    ) AS last
    WHERE found.currency IS NOT NULL
"""  # noqa: S608 - no outside text
_OF_ANY_CURRENCY: LiteralString = f"""
    SELECT *, xmin AS written_by FROM symbol_averages
    WHERE symbol = wanted.symbol AND {_BOUNDS} ORDER BY event_id DESC LIMIT 1
"""  # noqa: S608 - no outside text


@dataclass(frozen=True, slots=True)
class NewestAverage:
    """A row as it is told; `version` is another text where it is another row, or has changed in any way."""

    text: str
    version: str


def newest_averages(
    symbols: Sequence[str], table: Table, line: str, *, now: datetime
) -> dict[str, list[NewestAverage]]:
    """Return each symbol's newest averages as the SQL of `line` writes them; who has none is left out.

    Of each currency of which it had a price within CURRENCIES_WITHIN, the newest first; where there was none
    for so long, the newest of all. What is of a time still to come by `now` is left out.
    """
    return _newest(symbols, table, line, fetch, now=now)


def newest_versions(symbols: Sequence[str], table: Table, fetch: Fetch, *, now: datetime) -> str:
    """Return the version of the newest averages together, without reading what they tell."""
    return version_of(_newest(symbols, table, "''", fetch, now=now))


def version_of(found: Mapping[str, Sequence[NewestAverage]]) -> str:
    """Return a text that is another one where one of them is another row, or has changed in any way."""
    return ",".join(f"{symbol} {row.version}" for symbol in sorted(found) for row in found[symbol])


def _newest(
    symbols: Sequence[str], table: Table, line: str, fetch: Fetch, *, now: datetime
) -> dict[str, list[NewestAverage]]:
    def read(newest: LiteralString, wanted: Sequence[str], lowest: UUID) -> dict[str, list[NewestAverage]]:
        found: dict[str, list[NewestAverage]] = {}
        values = {"symbols": list(wanted), "lowest": lowest, "end": first_id_at(now + CLOCKS_AGREE_WITHIN)}
        written = {"line": line.replace("%", "%%"), "version": table.version.replace("%", "%%")}
        for symbol, text, version in fetch(_OF_SYMBOLS.format(**written, newest=newest), values):
            found.setdefault(symbol, []).append(NewestAverage(text, version))
        return found

    found = read(_OF_EACH_CURRENCY, symbols, first_id_at(now - CURRENCIES_WITHIN))
    left = [symbol for symbol in symbols if symbol not in found]
    if left:
        # A plan for every partition takes longer than the rest: only for those that have nothing near.
        found |= read(_OF_ANY_CURRENCY, left, _FIRST_ID)
    return found
