"""UUIDv7: ids in the order of time, so that a time bounds a range of them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import connection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The clocks of this service's processes and the database's, which is in the ids, differ by no more.
CLOCKS_AGREE_WITHIN = timedelta(minutes=1)


def first_id_at(moment: datetime) -> UUID:
    """Give the lowest id that a row made at this moment or later can have."""
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80)


def first_id_received(since: datetime) -> UUID:
    """Give the lowest id that a row can have whose `received_at`, by a process's clock, is `since` or later.

    For a bound of the partitions that are read: some rows from here on were received a little earlier.
    """
    return first_id_at(since - CLOCKS_AGREE_WITHIN)


def new_ids(count: int) -> list[UUID]:
    """Give ids made by PostgreSQL, in ascending order.

    For rows that are written together: Django's bulk_create leaves a primary key with a database
    default unread, and a row that refers to it would refer to nothing.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT uuidv7() FROM generate_series(1, %s)", [count])
        return [row[0] for row in cursor.fetchall()]
