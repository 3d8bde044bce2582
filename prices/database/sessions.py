"""What connections to PostgreSQL rely on, whatever the database or the role has for defaults.

ALTER DATABASE and ALTER ROLE ... SET give other defaults to every connection. Those that would change a
number, lose what was said to be stored, or make an answer unreadable are set back; others, such as
`search_path`, are the operator's.
"""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

# What is prepared (queries.py) is so that it is not planned each time, which PostgreSQL would go on with: it
# takes a plan that fits the values to be worth it where a table has partitions.
# With synchronous_commit off a commit is told before it is on the disk: after a crash of PostgreSQL a price
# could be gone that Kafka has, or an average whose offset is committed. Its other values are choices between
# replicas.
SESSION = """
SELECT set_config('datestyle', 'ISO, MDY', false),
       set_config('intervalstyle', 'postgres', false),
       set_config('extra_float_digits', '1', false),
       set_config('array_nulls', 'on', false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       CASE current_setting('synchronous_commit')
           WHEN 'off' THEN set_config('synchronous_commit', 'on', false)
       END
"""


def set_up_session(connection: BaseDatabaseWrapper, **_signal: Any) -> None:
    """Give a new connection of Django's what the service relies on. The time zone Django sets itself."""
    with connection.cursor() as cursor:
        cursor.execute(SESSION)
