"""Which database this is."""

from weakref import WeakKeyDictionary

import psycopg
from django.db import connection

_QUERY = """
    SELECT system_identifier || '-' || oid FROM pg_control_system(), pg_database
    WHERE datname = current_database()
"""
# By the connection: another database is reached by another one.
_known: WeakKeyDictionary["psycopg.Connection[tuple[object, ...]]", str] = WeakKeyDictionary()


def database_id() -> str:
    """Return what tells this database from all others: one that is made anew, or restored, has another one.

    Raises what the database raises.
    """
    connection.ensure_connection()
    known = _known.get(connection.connection)
    if known is None:
        with connection.cursor() as cursor:
            cursor.execute(_QUERY)
            (known,) = cursor.fetchone()
        _known[connection.connection] = known
    return known
