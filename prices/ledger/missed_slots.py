"""How many slots were not polled lately, by reason."""

from datetime import datetime

from django.db import connection

# A job's gaps do not overlap: of those that began before, only its newest one may reach into the time.
_BY_REASON = """
SELECT gap.reason, sum(CASE
    WHEN gap.from_due >= %(since)s THEN gap.slots
    ELSE least(gap.slots, 1 + floor(
        extract(epoch FROM gap.to_due - %(since)s) * (gap.slots - 1)
        / nullif(extract(epoch FROM gap.to_due - gap.from_due), 0)))
END)::bigint
FROM poll_jobs AS job CROSS JOIN LATERAL (
    SELECT * FROM poll_gaps WHERE job_id = job.id AND from_due >= %(since)s
    UNION ALL (
        SELECT * FROM poll_gaps WHERE job_id = job.id AND from_due < %(since)s
        ORDER BY from_due DESC LIMIT 1
    )
) AS gap
WHERE gap.to_due >= %(since)s
GROUP BY gap.reason ORDER BY 2 DESC, 1
"""


def missed_slots(*, since: datetime) -> dict[str, int]:
    """Return how many slots due since a moment are in gaps, by reason, the most first."""
    with connection.cursor() as cursor:
        cursor.execute(_BY_REASON, {"since": since})
        return dict(cursor.fetchall())
