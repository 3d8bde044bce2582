"""A database whose own defaults are odd, as ALTER DATABASE and ALTER ROLE ... SET make them."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

ODD = {
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
}
# They end what takes long; some connections have bounds of their own instead.
BOUNDS = {
    "lock_timeout": "1s",
    "statement_timeout": "1s",
    "transaction_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "1min",
}
# What connections have all the same.
RELIED_ON = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
}


@contextmanager
def odd_defaults(values: dict[str, str]) -> Iterator[None]:
    """Set such defaults for the database of the test, and let Django have a new connection that gets them."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        for setting, value in values.items():
            cursor.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    connection.close()
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} RESET ALL")
        connection.close()
