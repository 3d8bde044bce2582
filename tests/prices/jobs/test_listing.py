"""Lists of jobs: which are chosen, and that they are found fast among many that were stopped."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from prices.jobs.listing import select_jobs
from prices.jobs.services import pause_job, stop_job
from prices.models import PollJob
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db
_STOPPED_JOBS = """
    WITH tasks AS (
        INSERT INTO django_celery_beat_periodictask (name, task, args, kwargs, enabled, one_off,
            total_run_count, date_changed, description, headers, interval_id)
        SELECT 'stopped ' || number, 'prices.tasks.poll_job', '[]', '{}', false, false, 0, now(), '', '{}',
               (SELECT min(id) FROM django_celery_beat_intervalschedule)
        FROM generate_series(1, 20000) AS number
        RETURNING id
    )
    INSERT INTO poll_jobs (id, symbols, interval, provider, served_by, status, created_at, last_error,
                           failures, periodic_task_id, deleted_at)
    SELECT uuidv7(), ARRAY['AAPL', 'S' || id], 60, CASE WHEN id %% 2 = 0 THEN 'finnhub' END, 'yfinance',
           'stopped', now(), '', 0, id, CASE WHEN %s THEN now() END
    FROM tasks
"""


def rows_touched(plan: dict[str, Any]) -> Iterator[float]:
    """Yield how many rows each part of a plan has read, as PostgreSQL tells it of one turn."""
    yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for part in plan.get("Plans", []):
        yield from rows_touched(part)


def test_jobs_of_a_provider_name_it_or_were_served_by_it_last(make_job: MakeJob) -> None:
    naming = make_job(["AAPL"], provider="finnhub")
    served, elsewhere, unserved = (make_job(["AAPL"], provider=None) for _ in range(3))
    PollJob.objects.filter(id=served.id).update(served_by="finnhub")
    PollJob.objects.filter(id=elsewhere.id).update(served_by="yfinance")
    # It names another one, whoever served it before.
    PollJob.objects.filter(id=make_job(["AAPL"], provider="yfinance").id).update(served_by="finnhub")
    assert set(select_jobs(provider="finnhub")) == {naming, served}
    assert unserved in select_jobs()


def test_jobs_are_of_any_of_the_statuses_and_of_the_symbol(make_job: MakeJob) -> None:
    active, paused, stopped = (make_job(["SIM-A", "SIM-B"]) for _ in range(3))
    other = make_job(["SIM-AB"])
    pause_job(paused.id)
    stop_job(stopped.id)
    assert set(select_jobs(statuses=["active", "paused"])) == {active, paused, other}
    assert set(select_jobs(statuses=["stopped"], symbol="SIM-B")) == {stopped}
    assert set(select_jobs(symbol="SIM-AB", provider="simulated")) == {other}


@pytest.fixture(params=["kept", "deleted"])
def many_stopped_jobs(make_job: MakeJob, request: pytest.FixtureRequest) -> None:
    """Store 20,000 jobs that were stopped, or deleted as well, all younger than the 3 active ones."""
    for _ in range(3):
        make_job(["SIM-A"])
    with connection.cursor() as cursor:
        cursor.execute(_STOPPED_JOBS, [request.param == "deleted"])
        cursor.execute("ANALYZE poll_jobs, django_celery_beat_periodictask")


@pytest.mark.usefixtures("many_stopped_jobs")
def test_jobs_are_found_fast_among_many_that_were_stopped() -> None:
    for chosen in (
        {},
        {"statuses": ["active"]},
        {"statuses": ["active", "paused"]},
        {"statuses": ["paused", "stopped"]},
        {"statuses": ["stopped"]},
        {"provider": "simulated"},
        {"provider": "alpha_vantage"},
        {"provider": "finnhub", "statuses": ["active"]},
        {"symbol": "SIM-A"},
        {"symbol": "AAPL"},
        {"symbol": "AAPL", "statuses": ["active", "paused"]},
        {"symbol": "SIM-A", "provider": "simulated", "statuses": ["active"]},
    ):
        explained = select_jobs(**chosen).order_by("-id")[:101].explain(format="json", analyze=True)
        assert max(rows_touched(json.loads(explained)[0]["Plan"])) < 500, (chosen, explained)
