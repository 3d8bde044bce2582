"""Each slot is accounted for, by the real processes, also where all of them were killed."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models import Sum
from django.utils import timezone
from rest_framework.test import APIClient

from prices.ledger.runs import abandon_overdue_runs
from prices.models import BeatTerm, PollGap, PollJob, PollRun
from tests.prices.job_histories import Grid, History, check
from tests.product import Product
from tests.waiting import wait_until

PROCESSES = ("poller-simulated", "maintenance", "beat")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def product(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path)
    yield running
    running.close()


def test_slots_add_up_after_all_processes_were_killed(api: APIClient, product: Product) -> None:
    product.start(*PROCESSES)
    body = {"symbols": ["SIM-A"], "interval": 1, "provider": "simulated"}
    assert api.post("/prices/poll", body, format="json").status_code == 202
    job = PollJob.objects.get()
    runs = PollRun.objects.filter(job=job)
    wait_until(lambda: runs.count() >= 2, what="no slot was polled")
    for name in PROCESSES:
        product.kill(name)
    killed_at = timezone.now()
    wait_until(lambda: timezone.now() > killed_at + timedelta(seconds=3), what="the clock stands still")
    product.start(*PROCESSES)
    wait_until(lambda: runs.filter(due_at__gt=killed_at).count() >= 2, what="no slot was polled")
    assert api.post("/prices/stop", {"job_id": str(job.id)}, format="json").status_code == 200
    abandon_overdue_runs(now=timezone.now() + timedelta(hours=1))

    until = PollJob.objects.get().accounted_until
    history = History(job.id, job.created_at, [Grid(1, job.accounted_until, until)], is_known=False)
    check(history, until, list(BeatTerm.objects.values_list("began_at", "renewed_at")))
    missed = PollGap.objects.exclude(reason__startswith="abandoned").aggregate(slots=Sum("slots"))["slots"]
    assert missed >= 2
