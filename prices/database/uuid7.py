"""UUIDv7: ids in the order of time, so that a time bounds a range of them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import connection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The clocks of this service's processes and the database's, which is in the ids, differ by no more.
CLOCKS_AGREE_WITHIN = timedelta(minutes=1)
# Ids that are made at once are up to a moment ahead, so that each is higher than the one before.
IDS_RUN_AHEAD_BY = timedelta(seconds=1)
# As a condition on a row of price_points: its times are not of a time to come, as they are once a clock that
# was ahead is set right. By the database's clock; ids without a time are taken as they are.
IS_OF_TIME_UNTIL_NOW = """
    (uuid_extract_timestamp(id) > clock_timestamp()) IS NOT TRUE
    AND received_at <= clock_timestamp() + interval '60 seconds'
"""


def epoch_ms(moment: datetime) -> int:
    """Return a time in whole ms since the epoch."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def first_id_at(moment: datetime) -> UUID:
    """Return the lowest id that a row made at this moment or later can have."""
    return UUID(int=max(epoch_ms(moment), 0) << 80)


def made_at_ms(row_id: UUID) -> int:
    """Return when the row of this id was made, by the database's clock, in whole ms since the epoch."""
    return row_id.int >> 80


def time_of_id(row_id: UUID) -> datetime:
    """Return when the row of this id was made, to the millisecond."""
    return EPOCH + timedelta(milliseconds=made_at_ms(row_id))


def first_id_received(since: datetime) -> UUID:
    """Return the lowest id of a row whose `received_at`, by a process's clock, can be `since` or later.

    For a bound of the partitions that are read: some rows from here on were received a little earlier.
    """
    return first_id_at(since - CLOCKS_AGREE_WITHIN)


def new_ids(count: int) -> list[UUID]:
    """Return ids made by PostgreSQL, in ascending order.

    For rows that are written together: Django's bulk_create leaves a primary key with a database
    default unread, and a row that refers to it would refer to nothing.

    Outside of a transaction they are never of a time to come: a session that made ids by a clock that was
    ahead, and is set right, goes on with those, so another one is asked.
    """
    if not count:
        return []
    ids, now = _make_ids(count)
    if time_of_id(ids[-1]) > now + IDS_RUN_AHEAD_BY and not connection.in_atomic_block:
        connection.close()
        ids, _now = _make_ids(count)
    return ids


def _make_ids(count: int) -> tuple[list[UUID], datetime]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT uuidv7(), clock_timestamp() FROM generate_series(1, %s)", [count])
        ids, times = zip(*cursor.fetchall(), strict=True)
    return list(ids), times[-1]
