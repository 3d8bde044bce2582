"""The bars of a run beside those of their definition over all points."""

from datetime import timedelta
from unittest.mock import patch

from django.db import connection

from prices.bars import making
from prices.clock import database_now
from prices.models import PricePoint
from tests.chaos.world import World
from tests.prices.bars.definition import bars_of, stored_bars

# By then every hour and day is over.
LATER = timedelta(days=3)


def wrong_bars(_world: World) -> list[str]:
    """Return the bars that differ, once the run after the last point is done."""
    try:
        with patch.object(making, "database_now", return_value=database_now() + LATER):
            making.make_bars()
        stored, right = stored_bars(), bars_of(PricePoint.objects.all())
    finally:
        connection.close()
    differ = stored.items() ^ right.items()
    return [f"{key}: stored {stored.get(key)}, right is {right.get(key)}" for key in dict(differ)]
