"""A pytest plugin for django-celery-beat's own tests: our scheduler takes the place of the stock one.

The tests take both classes from `django_celery_beat.schedulers`, so that is where they are replaced.
"""

import sys
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any


class _Date:
    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def datetime(self) -> datetime:
        return self._moment.replace(tzinfo=None)


class _Observer:
    def next_transit(self, _body: object, *, start: _Date) -> _Date:
        return _Date(start.datetime() + timedelta(days=1))


def pytest_configure() -> None:
    """Replace the classes: Django is set up by now, and no test is read yet."""
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django_celery_beat import schedulers

    from prices.scheduler import PriceEntry, PriceScheduler

    schedulers.ModelEntry, schedulers.DatabaseScheduler = PriceEntry, PriceScheduler
    # Solar schedules need astronomy, which the service does not install: here it is noon after each day.
    sky: Any = ModuleType("ephem")
    sky.Observer, sky.Date, sky.Sun, sky.CircumpolarError = _Observer, _Date, object, ValueError
    sys.modules["ephem"] = sky
    # Each test runs in a transaction, for which the scheduler would take its connection to be broken.
    stay: Any = BaseDatabaseWrapper
    stay.close_if_unusable_or_obsolete = lambda _connection: None
