"""What keeps the stream from going on: a transaction that stays open, anywhere in the cluster."""

from django.db import connection

STALLED_AFTER_S = 5

# Whoever may not see others' sessions sees none that holds it.
_HELD = """
WITH horizon AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS oldest), waiting AS (
    SELECT written_at FROM average_batches, horizon
    WHERE tx >= oldest::text::bigint AND tx < (pg_snapshot_xmax(pg_current_snapshot())::text)::bigint
    ORDER BY tx LIMIT 1
)
SELECT to_char(written_at AT TIME ZONE 'UTC', 'HH24:MI:SS'), coalesce(
    (SELECT format('session %%s (user %%s, database %%s, application "%%s", %%s, transaction since %%s UTC)',
                   pid, usename, datname, application_name, state,
                   to_char(xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS'))
     FROM pg_stat_activity, horizon WHERE backend_xid = oldest::xid LIMIT 1),
    (SELECT format('the prepared transaction "%%s" (user %%s, database %%s, since %%s UTC)',
                   gid, owner, database,
                   to_char(prepared AT TIME ZONE 'UTC', 'HH24:MI:SS'))
     FROM pg_prepared_xacts, horizon WHERE transaction = oldest::xid LIMIT 1),
    'a session that this user may not see'
)
FROM waiting WHERE written_at < clock_timestamp() - make_interval(secs => %s)
"""


def describe_stall() -> str | None:
    """Return what holds back averages that were written over STALLED_AFTER_S ago; None where nothing does.

    Raises what the database raises.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HELD, [STALLED_AFTER_S])
        row = cursor.fetchone()
    if row is None:
        return None
    since, holder = row
    return f"holds back what was written since {since} UTC until a transaction ends: {holder}"
