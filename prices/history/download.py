"""Rows as files of any length.

Each page is a query of its own: between two of them neither a transaction nor a connection is held.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from prices.history.columns import csv_header, csv_line, json_line
from prices.history.query import Query, read_page
from prices.history.tables import Table

# Of a download, in memory for each client.
PAGE_ROWS = 250


@dataclass(frozen=True, slots=True)
class Form:
    """How a file writes rows: what it begins with, the SQL of a line, what ends a line."""

    header: str
    line: str
    line_end: str


def csv_form(table: Table) -> Form:
    """Return the form of CSV: a line of names, then one for each row."""
    return Form(csv_header(table.columns) + CSV_LINE_END, csv_line(table.columns), CSV_LINE_END)


def ndjson_form(table: Table, *, prices_as_text: bool) -> Form:
    """Return the form of newline-delimited JSON: an object on each line."""
    return Form("", json_line(table.columns, prices_as_text=prices_as_text), "\n")


@cache
def _without_version(table: Table) -> Table:
    # Nobody asks for that of a page.
    return replace(table, version="NULL")


CSV_LINE_END = "\r\n"


def download(table: Table, query: Query, form: Form, *, limit: int | None, now: datetime) -> Iterator[bytes]:
    """Yield the file in pieces of some KB, rows in the first, too; at most `limit`, all where it is None."""
    left, after, before = limit, query.after, form.header
    table = _without_version(table)
    while left is None or left > 0:
        rows = PAGE_ROWS if left is None else min(PAGE_ROWS, left)
        page = read_page(
            table, replace(query, after=after), form.line, limit=rows, separator=form.line_end, now=now
        )
        yield (before + (page.text and page.text + form.line_end)).encode()
        if page.after is None:
            return
        after, before = page.after, ""
        left = None if left is None else left - rows
