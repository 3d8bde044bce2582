"""Which jobs have changed since the last look, without reading all of them.

Each row has the transaction that last changed it (`poll_jobs.changed`). Transactions do not commit in the
order of their numbers, so a look begins at the oldest one that was still running at the look before:
what it gives may be known already, but nothing is missed.

After a dump is restored into a new cluster, rows have numbers that this one has yet to reach. They are not
looked at: whatever changes such a job gives it a number of this cluster.
"""

from collections.abc import Callable, Sequence

from django.db import connection
from django.db.models import QuerySet

from prices.models import PollJob

_SNAPSHOT = """
    SELECT pg_snapshot_xmin(snapshot)::text::bigint, pg_snapshot_xmax(snapshot)::text::bigint
    FROM pg_current_snapshot() snapshot
"""


class JobChanges:
    """Up to where the changes of poll_jobs are read; the first time every job is."""

    def __init__(self, jobs: Callable[[], QuerySet[PollJob]]) -> None:
        self._jobs = jobs
        self._from = 0
        self._seen: dict[object, int] = {}

    def read(self) -> Sequence[PollJob]:
        """Return the jobs, of those that `jobs` selects, that have changed since the last look."""
        with connection.cursor() as cursor:
            # Read first: what commits between the two statements is read the next time.
            cursor.execute(_SNAPSHOT)
            oldest_running, end = cursor.fetchone()
        jobs = self._jobs().filter(changed__gte=self._from)
        # The first look is of every job.
        found = list(jobs.filter(changed__lt=end) if self._from else jobs)
        changed = [job for job in found if self._seen.get(job.id) != job.changed]
        self._seen = {job.id: job.changed for job in found if job.changed >= oldest_running}
        self._from = oldest_running
        return changed
