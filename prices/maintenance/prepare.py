"""What must exist before the service runs: tables, partitions, the topic, an admin, a demo job.

Each step may run again at any time, and two preparations may run at once.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection

from prices.clock import database_now
from prices.jobs.services import create_job
from prices.maintenance.partitions import make_partitions
from prices.models import PollJob
from providers.keys import SIMULATED

ADMIN_NAME = "admin"
DEMO_SYMBOLS = ["SIM-ACME", "SIM-BTC", "SIM-EURUSD"]
DEMO_INTERVAL_S = 2


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other preparation runs on this database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('prepare'))")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('prepare'))")


def prepare_database() -> None:
    """Apply the migrations and make the partitions of the coming days."""
    call_command("migrate", interactive=False, verbosity=0)
    make_partitions(database_now().date())


def ensure_admin(password: str) -> str | None:
    """Create the user `admin` where there is none; return its password where that was made up here."""
    users = get_user_model().objects
    if users.filter(username=ADMIN_NAME).exists():
        return None
    made_up = None if password else secrets.token_urlsafe(12)
    users.create_superuser(ADMIN_NAME, password=password or made_up)
    return made_up


def ensure_demo_job() -> UUID:
    """Return the demo job, created where there never was one: stopped by its user, it stays stopped."""
    demo = PollJob.objects.filter(symbols=DEMO_SYMBOLS, interval=DEMO_INTERVAL_S, provider=SIMULATED).first()
    job = demo or create_job(symbols=DEMO_SYMBOLS, interval=DEMO_INTERVAL_S, provider=SIMULATED)
    return job.id
