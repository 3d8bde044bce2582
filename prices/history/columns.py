"""What a row tells, and how PostgreSQL writes it as a line of JSON or CSV.

It does so in a tenth of the time that Python needs, and beside it: whole pages come as one text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_TIME = """
CASE WHEN {0} = date_trunc('second', {0}) THEN to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
     ELSE to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END
"""


class Kind(Enum):
    """What a column holds."""

    TEXT = "text"
    # Letters, digits and signs that need no quotes in either form.
    WORD = "word"
    # With the provider's digits: a double has not enough of them.
    PRICE = "price"
    COUNT = "count"
    TIME = "time"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer: its name there, its expression in SQL, what it holds."""

    name: str
    sql: str
    kind: Kind


def json_line(columns: Sequence[Column], *, prices_as_text: bool) -> str:
    """Return the SQL of a row's JSON object; prices are numbers, or strings of the same digits."""
    members = (
        f"""'"{column.name}":' || {_json_value(column, prices_as_text=prices_as_text)}"""
        for column in columns
    )
    return f"'{{' || {''' || ',' || '''.join(members)} || '}}'"


def csv_line(columns: Sequence[Column]) -> str:
    """Return the SQL of a row's line in CSV (RFC 4180); null is nothing."""
    return " || ',' || ".join(f"coalesce({_csv_value(column)}, '')" for column in columns)


def csv_header(columns: Sequence[Column]) -> str:
    """Return the first line of a file."""
    return ",".join(column.name for column in columns)


def _json_value(column: Column, *, prices_as_text: bool) -> str:
    match column.kind:
        case Kind.TEXT:
            value = f"to_json({column.sql})::text"
        case Kind.TIME:
            value = f"""'"' || ({_TIME.format(column.sql)}) || '"'"""
        case Kind.WORD:
            value = f"""'"' || {column.sql} || '"'"""
        case Kind.PRICE if prices_as_text:
            value = f"""'"' || {column.sql} || '"'"""
        case _:
            value = f"({column.sql})::text"
    return f"coalesce({value}, 'null')"


def _csv_value(column: Column) -> str:
    match column.kind:
        case Kind.TEXT | Kind.JSON:
            quoted = f"""'"' || replace({column.sql}, '"', '""') || '"'"""
            return f"""CASE WHEN {column.sql} ~ '[",\\r\\n]' THEN {quoted} ELSE {column.sql} END"""
        case Kind.TIME:
            return f"({_TIME.format(column.sql)})"
        case _:
            return f"({column.sql})::text"
