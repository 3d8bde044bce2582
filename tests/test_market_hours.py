"""A job in market hours, by the real processes: its first price at any hour, then nothing until the open."""

from datetime import timedelta
from pathlib import Path

from rest_framework.test import APIClient

from prices.clock import database_now
from prices.ledger.accounting import account_slots
from prices.models import PollGap, PollJob, PollRun
from providers.markets.calendars import calendar_of
from providers.markets.polling_hours import polling_hours
from providers.simulator.simulator import Simulator
from tests.product import Product
from tests.simulator import pointing_at
from tests.waiting import wait_until


def closed_symbol() -> str:
    """Return a symbol whose market is closed for the next quarter of an hour: one of two always is."""
    now = database_now()
    for symbol in ("AAPL", "7203.T"):
        calendar = calendar_of(symbol, provider="finnhub")
        if calendar and polling_hours({calendar}, start=now, end=now + timedelta(minutes=15)) == []:
            return symbol
    raise AssertionError("both are open")


def test_job_of_a_closed_market_has_its_first_price_and_then_rests(
    transactional_db: None, api: APIClient, topic: str, tmp_path: Path, simulator: Simulator
) -> None:
    product = Product(tmp_path, **pointing_at(simulator), FINNHUB_BUDGET="1000/1m")
    try:
        product.start("beat", "poller-finnhub")
        body = {"interval": 1, "provider": "finnhub"}
        for more in ({"symbols": [closed_symbol()], "market_hours": True}, {"symbols": ["GE"]}):
            assert api.post("/prices/poll", body | more, format="json").status_code == 202
        closed, other = PollJob.objects.order_by("id")
        wait_until(lambda: PollJob.objects.exclude(market_hours_from=None).exists(), what="no first price")
        # Until it was written, another slot may have been claimed.
        seen = database_now()
        others = PollRun.objects.filter(job=other, due_at__gt=seen + timedelta(seconds=8))
        wait_until(others.exists, what="the other job is not polled")
        assert not PollRun.objects.filter(job=closed, due_at__gt=seen).exists()
        account_slots(all_jobs=True)
        gap = PollGap.objects.filter(job=closed).latest("from_due")
        assert gap.reason == "market_closed: outside the hours of the job's markets"
    finally:
        product.close()
