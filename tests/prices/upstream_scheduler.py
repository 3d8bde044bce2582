"""A pytest plugin for django-celery-beat's own tests: our scheduler takes the place of the stock one.

The tests take both classes from `django_celery_beat.schedulers`, so that is where they are replaced.
"""

from typing import Any


def pytest_configure() -> None:
    """Replace the classes: Django is set up by now, and no test is read yet."""
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django_celery_beat import schedulers

    from prices.scheduling import scheduler
    from prices.scheduling.scheduler import PriceEntry, PriceScheduler

    # As a scheduler that leads from the beginning, and looks for changes in every turn.
    ours: Any = PriceScheduler
    ours.setup_schedule = schedulers.DatabaseScheduler.setup_schedule
    ours._take_over = lambda *_: True
    scheduler.OTHERS_EACH_S = 0.0
    schedulers.ModelEntry, schedulers.DatabaseScheduler = PriceEntry, PriceScheduler
    # Each test runs in a transaction, for which the scheduler would take its connection to be broken.
    stay: Any = BaseDatabaseWrapper
    stay.close_if_unusable_or_obsolete = lambda _connection: None
