"""The newest rows of a table that is partitioned by time, without opening all of its partitions.

What matches is mostly of today. A plan for every partition of some years takes longer than the rest of most
answers, so that one is made only where less is not enough.
"""

from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import QuerySet

_Rows = TypeVar("_Rows")

# How far is looked back at first, and then; after that, to the first row.
LOOK_BACK = (timedelta(days=1), timedelta(days=32))
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MS = (1 << 48) - 1


def newest_rows(rows: "QuerySet[Any, _Rows]", *, key: str, around: UUID, limit: int) -> list[_Rows]:
    """Return the rows with the highest ids, the highest first, at most `limit`.

    `key` names the column of UUIDv7 by which the table is partitioned. It is looked back from `around`: the
    lowest id that is out of question, or that of now.
    """
    sorted_rows = rows.order_by(f"-{key}")
    for step in LOOK_BACK:
        found = list(sorted_rows.filter(**{f"{key}__gte": id_before(around, step)})[:limit])
        if len(found) == limit:
            return found
    return list(sorted_rows[:limit])


def id_before(row_id: UUID, span: timedelta) -> UUID:
    """Return the lowest id of a row that was made so long before the row of this id, or after it."""
    return UUID(int=min(max((row_id.int >> 80) - span // _MILLISECOND, 0), _LAST_MS) << 80)
