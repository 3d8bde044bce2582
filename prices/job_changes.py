"""Which jobs have changed since the last look, without reading all of them.

Each row has the transaction that last changed it (`poll_jobs.changed`). Transactions do not commit in the
order of their numbers, so a look begins at the oldest one that was still running at the look before:
what it gives may be known already, but nothing is missed.
"""

from collections.abc import Callable, Sequence

from django.db import connection
from django.db.models import QuerySet

from prices.models import PollJob


class JobChanges:
    """A reader's place in the changes of poll_jobs; the first look gives every job."""

    def __init__(self, jobs: Callable[[], QuerySet[PollJob]]) -> None:
        self._jobs = jobs
        self._from = 0
        self._seen: dict[object, int] = {}

    def look(self) -> Sequence[PollJob]:
        """Give the jobs, of those that `jobs` selects, that have changed since the last look."""
        with connection.cursor() as cursor:
            # Read first: what commits between the two statements is read now, and once more.
            cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            (oldest_running,) = cursor.fetchone()
        found = list(self._jobs().filter(changed__gte=self._from))
        changed = [job for job in found if self._seen.get(job.id) != job.changed]
        self._seen = {job.id: job.changed for job in found if job.changed >= oldest_running}
        self._from = oldest_running
        return changed
