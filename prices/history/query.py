"""One page of rows, in one query.

Without symbols the rows are in the order of their ids, which is that of receipt. With symbols those of the
first come first, then those of the second, each in that order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from prices.database.newest import LOOK_BACK, id_before
from prices.database.queries import Fetch, fetch
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
    """The lines of a page, joined; `after` is where the next one begins, None where this is the last one.

    `version` is another text where a row is another one, has another place, or has changed in any way.
    """

    text: str
    after: Position | None
    version: str


def read_page(table: Table, query: Query, line: str, *, limit: int, separator: str, now: datetime) -> Page:
    """Return the next rows as the SQL of `line` writes them, at most `limit`.

    What was received in a time that is still to come by `now` is left out.
    """
    statement = _statement(_PAGE, table, _form(query), line)
    for bounds in _bounds(query, now=now):
        values = _values(query, bounds) | {"limit": limit, "separator": separator}
        ((text, rows, row_id, symbol, digest),) = fetch(statement, values)
        has_more = rows > limit
        # It is full: the rows that a narrow bound leaves out come later.
        if has_more:
            break
    after = Position(UUID(row_id), symbol if query.symbols else None) if has_more else None
    return Page(text or "", after, _version(digest, has_more=has_more))


def read_version(table: Table, query: Query, fetch: Fetch, *, limit: int, now: datetime) -> str:
    """Return the version of the page that `read_page` would return, without reading what its rows tell."""
    statement = _statement(_VERSION, table, _form(query))
    for bounds in _bounds(query, now=now):
        ((digest, rows),) = fetch(statement, _values(query, bounds) | {"limit": limit})
        has_more = int(rows) > limit
        if has_more:
            break
    return _version(digest, has_more=has_more)


def _version(digest: str | None, *, has_more: bool) -> str:
    return f"{digest} {has_more}"


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


# Of the rows before the last one that is looked at, which only tells that there are more.
_DIGEST = """
encode(sha256(convert_to(string_agg(row_id || ' ' || version, ',' ORDER BY number)
                         FILTER (WHERE number <= %(limit)s), 'UTF8')), 'hex')
"""
_PAGE = """
SELECT string_agg(line, %(separator)s ORDER BY number) FILTER (WHERE number <= %(limit)s), count(*),
       max(row_id::text) FILTER (WHERE number = %(limit)s), max(symbol) FILTER (WHERE number = %(limit)s),
       {digest}
FROM (
    SELECT {line} AS line, {version} AS version, row.symbol, row.{key} AS row_id,
           row_number() OVER (ORDER BY {order}) AS number
    FROM {source} ORDER BY {order} LIMIT %(limit)s + 1
) AS page
"""
_VERSION = """
SELECT {digest}, count(*)
FROM (
    SELECT {version} AS version, row.{key} AS row_id, row_number() OVER (ORDER BY {order}) AS number
    FROM {source} ORDER BY {order} LIMIT %(limit)s + 1
) AS page
"""
_OF_SYMBOLS = """
unnest(%(symbols)s::text[], %(from)s::uuid[], %(to)s::uuid[])
    WITH ORDINALITY AS wanted (symbol, lowest, beyond, place)
CROSS JOIN LATERAL (
    SELECT *, xmin AS written_by FROM {table} AS row
    WHERE row.symbol = wanted.symbol AND row.{key} >= wanted.lowest AND row.{key} < wanted.beyond
      AND {conditions}
    ORDER BY row.{key} {direction} LIMIT %(limit)s + 1
) AS row
"""
_OF_ALL = "(SELECT *, xmin AS written_by FROM {table} AS row WHERE {conditions}) AS row"
# The row before is looked for by an index.
_IS_CHANGE = """
(row.observed_at IS NULL OR row.observed_at IS DISTINCT FROM (
    SELECT before.observed_at FROM {table} AS before
    WHERE before.symbol = row.symbol AND before.provider = row.provider AND before.{key} < row.{key}
    ORDER BY before.{key} DESC LIMIT 1
))
"""


class _Form(NamedTuple):
    """What of a query is in its SQL; the rest is in its values."""

    of_symbols: bool
    of_provider: bool
    has_since: bool
    has_until: bool
    is_ascending: bool
    only_changes: bool


def _form(query: Query) -> _Form:
    return _Form(
        of_symbols=bool(query.symbols),
        of_provider=query.provider is not None,
        has_since=query.since is not None,
        has_until=query.until is not None,
        is_ascending=query.is_ascending,
        only_changes=query.only_changes,
    )


@lru_cache(maxsize=256)
def _statement(template: str, table: Table, form: _Form, line: str = "") -> str:
    direction = "ASC" if form.is_ascending else "DESC"
    names = {"table": table.name, "key": table.key, "direction": direction}
    conditions = " AND ".join(_conditions(table, form)).format(**names)
    source = (_OF_SYMBOLS if form.of_symbols else _OF_ALL).format(**names, conditions=conditions)
    order = f"{'wanted.place, ' if form.of_symbols else ''}row.{table.key} {direction}"
    written = {"line": line.replace("%", "%%"), "version": table.version.replace("%", "%%")}
    return template.format(**written, digest=_DIGEST, source=source, order=order, **names)


def _conditions(table: Table, form: _Form) -> Iterator[str]:
    """Yield what a row has to be, with the names of table and key still to come."""
    yield "row.{key} >= %(lowest)s AND row.{key} < %(end)s"
    if form.of_provider:
        yield "row.provider = %(provider)s"
    if form.has_since:
        yield _received(table, ">=", "since")
    if form.has_until:
        yield _received(table, "<", "until")
    if form.only_changes:
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
