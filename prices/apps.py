"""The app that stores and serves prices."""

from django.apps import AppConfig
from django.db.backends.signals import connection_created

from prices.database.sessions import set_up_session


class PricesConfig(AppConfig):
    """Prices: jobs, polls, points, the outbox and the REST contract."""

    name = "prices"

    def ready(self) -> None:
        """Set up each connection to PostgreSQL that Django opens."""
        connection_created.connect(set_up_session, dispatch_uid="prices.database.sessions")
