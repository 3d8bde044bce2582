"""The app that stores and serves prices."""

from django.apps import AppConfig


class PricesConfig(AppConfig):
    """Prices: jobs, polls, points, the outbox and the REST contract."""

    name = "prices"
