"""The consumer's sessions on PostgreSQL."""

from django.db import connection


def end_sessions(*, timeout_ms: int = 5000) -> int:
    """End every session of a consumer on the database of the test, as an operator may; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE application_name = 'consume_prices' AND datname = current_database()",
            [timeout_ms],
        )
        return sum(is_ended for (is_ended,) in cursor.fetchall())


def a_session_waits() -> bool:
    """Return whether a consumer waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'consume_prices'"
            " AND datname = current_database() AND wait_event_type = 'Lock')"
        )
        return bool(cursor.fetchone()[0])
