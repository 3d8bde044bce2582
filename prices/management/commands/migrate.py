"""manage.py migrate: Django's own, beside a service that runs."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate

from prices.database.lock_waits import PATIENCE_S, LockHeldError, in_short_waits


class Command(migrate.Command):
    """Apply migrations; wait for the tables' locks a moment at a time, so that nobody queues behind it."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply those that are left until none is."""
        try:
            in_short_waits(lambda: super(Command, self).handle(*args, **options))
        except LockHeldError as error:
            raise CommandError(
                f"A lock that a migration needs was held for {PATIENCE_S:g} s by session {error}. That"
                " migration is not applied, and nothing is left half done. End that session or wait for it,"
                " and run this again."
            ) from error
