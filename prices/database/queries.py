"""The rows of a query written by hand, planned anew for its values or once for each connection."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from django.db import OperationalError, connection
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

# Returns the rows of a statement with these values.
Fetch: TypeAlias = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]

# The names of what is prepared, by the connection. Statements are of a few forms, so there are never many.
_prepared: WeakKeyDictionary["psycopg.Connection[tuple[object, ...]]", dict[str, bytes]] = WeakKeyDictionary()
_VALUE = re.compile(r"%\((\w+)\)s|%%")


def fetch(statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """Return the rows of a query that PostgreSQL plans for these values."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def fetch_prepared(statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[str | None]]:
    """Return the rows, as texts, of a query that PostgreSQL plans once for each connection.

    For one that takes less time than to plan it. It goes to libpq directly: a cursor of psycopg takes longer
    than PostgreSQL, and so does the question of Django's, whether the connection still works. Raises
    OperationalError at any error, also where the connection was lost since it was last used.
    """
    connection.ensure_connection()
    opened: psycopg.Connection[tuple[object, ...]] = connection.connection
    numbered, names = _numbered(statement)
    try:
        prepared = _prepare(opened, numbered)
        given: list[Any] = [_as_text(values[name]) for name in names]
        result = opened.pgconn.exec_prepared(prepared, given)
    except psycopg.Error as error:
        raise OperationalError(str(error)) from error
    _check(opened.pgconn, result, ExecStatus.TUPLES_OK)
    return [
        [_text_of(result.get_value(row, column)) for column in range(result.nfields)]
        for row in range(result.ntuples)
    ]


def _prepare(opened: "psycopg.Connection[tuple[object, ...]]", statement: str) -> bytes:
    names = _prepared.setdefault(opened, {})
    name = names.get(statement)
    if name is None:
        name = b"prepared_%d" % len(names)
        result = opened.pgconn.prepare(name, statement.encode())
        _check(opened.pgconn, result, ExecStatus.COMMAND_OK)
        names[statement] = name
    return name


def _check(connected: PGconn, result: PGresult, expected: ExecStatus) -> None:
    if result.status != expected:
        raise OperationalError(connected.get_error_message())


@lru_cache(maxsize=256)
def _numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement with $1 and so on in place of names, and the names in their order."""
    names = dict.fromkeys(name for name in _VALUE.findall(statement) if name)
    numbers = {name: f"${number}" for number, name in enumerate(names, start=1)}
    return _VALUE.sub(lambda found: numbers[found[1]] if found[1] else "%", statement), tuple(names)


def _text_of(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _as_text(value: object) -> bytes | None:
    """Return a value as PostgreSQL reads it; a list as an array."""
    if value is None:
        return None
    if isinstance(value, list):
        return b"{%b}" % b",".join(map(_element, value))
    return str(value).encode()


def _element(value: object) -> bytes:
    return b'"%b"' % str(value).replace("\\", "\\\\").replace('"', '\\"').encode()
