"""One page of rows, in one query.

Without symbols the rows are in the order of their ids, which is that of receipt. With symbols those of the
first come first, then those of the second, each in that order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from prices.database.newest import LOOK_BACK, id_before
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at, first_id_received
from prices.history.tables import Table

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=(1 << 128) - 1)


@dataclass(frozen=True, slots=True)
class Position:
    """The row after which a page begins; `symbol` is None where the rows are not sorted by symbol."""

    row_id: UUID
    symbol: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows are asked for; None and an empty list: all.

    `since` and `until` are of receipt, `until` not included. `only_changes` leaves out a row whose provider's
    time is that of the row before of the same symbol and provider.
    """

    symbols: Sequence[str] = ()
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_ascending: bool = False
    only_changes: bool = False
    after: Position | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The lines of a page, joined; `after` is where the next one begins, None where this is the last one."""

    text: str
    after: Position | None


def read_page(table: Table, query: Query, line: str, *, limit: int, separator: str, now: datetime) -> Page:
    """Return the next rows as the SQL of `line` writes them, at most `limit`.

    What was received in a time that is still to come by `now` is left out.
    """
    for bounds in _bounds(query, now=now):
        page = _read(table, query, bounds, line, limit=limit, separator=separator)
        # It is full: the rows that a narrow bound leaves out come later.
        if page.after is not None:
            break
    return page


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Rows have ids from `lowest` on, below `end`."""

    lowest: UUID
    end: UUID


def _bounds(query: Query, *, now: datetime) -> Iterator[_Bounds]:
    """Yield what the ids lie between, the last time all of it, before that what is near the page's beginning.

    A plan for every partition of some years takes longer than most pages. Of several symbols all rows of the
    first come before those of the next, however old.
    """
    lowest = FIRST_ID if query.since is None else first_id_received(query.since)
    end = first_id_at(now + CLOCKS_AGREE_WITHIN)
    if query.until is not None and query.until < now:
        end = first_id_at(query.until + CLOCKS_AGREE_WITHIN)
    whole = _Bounds(lowest, end)
    if not query.is_ascending and len(_symbols_left(query)) < 2:
        begin = end if query.after is None else query.after.row_id
        yield from (
            replace(whole, lowest=near)
            for near in (id_before(begin, step) for step in LOOK_BACK)
            if near > lowest
        )
    yield whole


_PAGE = """
SELECT string_agg(line, %(separator)s ORDER BY number) FILTER (WHERE number <= %(limit)s), count(*),
       max(row_id::text) FILTER (WHERE number = %(limit)s), max(symbol) FILTER (WHERE number = %(limit)s)
FROM (
    SELECT {line} AS line, row.symbol, row.{key} AS row_id, row_number() OVER (ORDER BY {order}) AS number
    FROM {source} ORDER BY {order} LIMIT %(limit)s + 1
) AS page
"""
_OF_SYMBOLS = """
unnest(%(symbols)s::text[], %(from)s::uuid[], %(to)s::uuid[])
    WITH ORDINALITY AS wanted (symbol, lowest, beyond, place)
CROSS JOIN LATERAL (
    SELECT * FROM {table} AS row
    WHERE row.symbol = wanted.symbol AND row.{key} >= wanted.lowest AND row.{key} < wanted.beyond
      AND {conditions}
    ORDER BY row.{key} {direction} LIMIT %(limit)s + 1
) AS row
"""
_OF_ALL = "(SELECT * FROM {table} AS row WHERE {conditions}) AS row"
# The row before is looked for by an index.
_IS_CHANGE = """
(row.observed_at IS NULL OR row.observed_at IS DISTINCT FROM (
    SELECT before.observed_at FROM {table} AS before
    WHERE before.symbol = row.symbol AND before.provider = row.provider AND before.{key} < row.{key}
    ORDER BY before.{key} DESC LIMIT 1
))
"""


def _read(table: Table, query: Query, bounds: _Bounds, line: str, *, limit: int, separator: str) -> Page:
    direction = "ASC" if query.is_ascending else "DESC"
    names = {"table": table.name, "key": table.key, "direction": direction}
    conditions = " AND ".join(_conditions(table, query)).format(**names)
    source = (_OF_SYMBOLS if query.symbols else _OF_ALL).format(**names, conditions=conditions)
    order = f"{'wanted.place, ' if query.symbols else ''}row.{table.key} {direction}"
    statement = _PAGE.format(line=line.replace("%", "%%"), source=source, order=order, **names)
    values = _values(query, bounds) | {"limit": limit, "separator": separator}
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        text, count, row_id, symbol = cursor.fetchone()
    more = Position(UUID(row_id), symbol if query.symbols else None) if count > limit else None
    return Page(text or "", more)


def _conditions(table: Table, query: Query) -> Iterator[str]:
    """Yield what a row has to be, with the names of table and key still to come."""
    yield "row.{key} >= %(lowest)s AND row.{key} < %(end)s"
    if query.provider is not None:
        yield "row.provider = %(provider)s"
    if query.since is not None:
        yield _received(table, ">=", "since")
    if query.until is not None:
        yield _received(table, "<", "until")
    if query.only_changes:
        yield _IS_CHANGE


def _received(table: Table, operator: str, name: str) -> str:
    if table.received_at is None:
        return f"row.{{key}} {operator} %({name}_id)s"
    return f"row.{table.received_at} {operator} %({name})s"


def _values(query: Query, bounds: _Bounds) -> dict[str, Any]:
    values: dict[str, Any] = {"provider": query.provider}
    for name, moment in (("since", query.since), ("until", query.until)):
        if moment is not None:
            values |= {name: moment, f"{name}_id": first_id_at(moment)}
    if query.symbols:
        symbols = _symbols_left(query)
        lowest, end = [FIRST_ID] * len(symbols), [LAST_ID] * len(symbols)
        if query.after is not None:
            (lowest if query.is_ascending else end)[0] = _beyond(query.after.row_id, query)
        return values | {
            "symbols": symbols,
            "from": lowest,
            "to": end,
            "lowest": bounds.lowest,
            "end": bounds.end,
        }
    if query.after is not None:
        beyond = _beyond(query.after.row_id, query)
        bounds = replace(bounds, lowest=beyond) if query.is_ascending else replace(bounds, end=beyond)
    return values | {"lowest": bounds.lowest, "end": bounds.end}


def _symbols_left(query: Query) -> list[str]:
    symbols = list(query.symbols)
    if query.after is None or query.after.symbol is None:
        return symbols
    return symbols[symbols.index(query.after.symbol) :]


def _beyond(row_id: UUID, query: Query) -> UUID:
    return UUID(int=row_id.int + 1) if query.is_ascending else row_id
