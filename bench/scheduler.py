"""The beat scheduler beside the stock one of django-celery-beat: `python -m bench scheduler`.

even         1,000 jobs, each every 6 s: stock, then this one
mixed        10,000 jobs of 1 to 60 s, one created and one stopped each second: stock, then this one
many         50,000 jobs, each every 60 s: this one

The whole path runs, each process as the Procfile has it: beat, poller, maintenance, PostgreSQL, Valkey,
Kafka.
"""

import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import redis
from django.conf import settings
from django.db import connection
from django.utils import timezone

from bench.machine import describe_machine
from bench.poll_jobs import Changes, forget_jobs, intervals_between, make_jobs
from bench.scheduler_table import GOALS, GOALS_OF_MANY, OWN, STOCK, Figures, table
from bench.service import Meter, Service
from bench.slots_polled import Window, read_polled
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic

_STOCK_OPTION = "--scheduler django_celery_beat.schedulers:DatabaseScheduler"
_POLLER = "poller-simulated"
STARTED_WITHIN_S = 180
# What was due last gets so long to be stored.
DRAIN_S = 5
TICK_S = 0.2


@dataclass(frozen=True)
class Case:
    """So many jobs of intervals between these (seconds), measured so long; with changes, with stock beat."""

    jobs: int
    shortest: int
    longest: int
    seconds: int
    has_changes: bool = False
    with_stock: bool = True
    goals: Mapping[str, float] = field(default_factory=lambda: GOALS)


CASES = {
    "even": Case(1_000, 6, 6, seconds=30),
    "mixed": Case(10_000, 1, 60, seconds=60, has_changes=True),
    "many": Case(50_000, 60, 60, seconds=60, with_stock=False, goals=GOALS_OF_MANY),
}


@dataclass(frozen=True)
class Plan:
    """What is measured, after how long; `seconds`, `jobs` and `without_stock` cut the cases down."""

    cases: Sequence[str]
    seconds: int | None
    warm_up_s: int
    pollers: int
    jobs: int | None
    without_stock: bool


def run(plan: Plan, *, parts: Mapping[str, int], json_file: Path | None) -> None:
    """Measure and print, case by case; `parts` has the process id of each server that is this run's own."""
    print(describe_machine())
    # A line for each job created and stopped would stand between the tables.
    logging.getLogger("prices").setLevel(logging.WARNING)
    ensure_topic(make_admin())
    found: dict[str, dict[str, Figures]] = {}
    for name in plan.cases:
        case = CASES[name]
        found[name] = {
            scheduler: _measure(plan, case, scheduler=scheduler, parts=parts)
            for scheduler in (STOCK, OWN)
            if scheduler == OWN or (case.with_stock and not plan.without_stock)
        }
        print(f"\n{_title(plan, name)}\n{table(found[name], goals=case.goals)}", flush=True)
    if json_file:
        figures = {
            name: {scheduler: asdict(one) for scheduler, one in by_scheduler.items()}
            for name, by_scheduler in found.items()
        }
        told = {"machine": describe_machine(), "plan": asdict(plan), "cases": figures}
        json_file.write_text(json.dumps(told, indent=2))


def _title(plan: Plan, name: str) -> str:
    case = CASES[name]
    span = f"{case.shortest} s" if case.shortest == case.longest else f"{case.shortest} to {case.longest} s"
    changes = ", one created and one stopped each second" if case.has_changes else ""
    jobs = f"{plan.jobs or case.jobs:,} jobs of one symbol, each every {span}{changes}"
    return (
        f"{name}: {jobs}; {plan.seconds or case.seconds} s after {plan.warm_up_s} s, {plan.pollers} poller(s)"
    )


def _measure(plan: Plan, case: Case, *, scheduler: str, parts: Mapping[str, int]) -> Figures:
    forget_jobs()
    redis.Redis.from_url(settings.REDIS_URL).flushdb()
    jobs = make_jobs(intervals_between(case.shortest, case.longest, count=plan.jobs or case.jobs))
    interval = partial(Random(2).randint, case.shortest, case.longest)
    changes = Changes(jobs, interval=interval) if case.has_changes else None
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        _start(service, scheduler=scheduler, pollers=plan.pollers)
        with changes or nullcontext():
            _wait(service, seconds=plan.warm_up_s)
            meter = Meter(service, parts)
            begin = timezone.now()
            _wait(service, seconds=plan.seconds or case.seconds)
            usage, end = meter.read(), timezone.now()
        _wait(service, seconds=DRAIN_S)
        polled = read_polled(jobs, changes, Window(begin, end))
    return Figures((end - begin).total_seconds(), polled, usage)


def _start(service: Service, *, scheduler: str, pollers: int) -> None:
    """Start all, and wait until the first slot is polled."""
    for number in range(1, pollers + 1):
        name = f"{_POLLER}-{number}"
        service.start(name, command=service.command(_POLLER).replace(f"{_POLLER}@", f"{name}@"))
    service.start("maintenance")
    beat = service.command("beat")
    service.start("beat", command=beat if scheduler == OWN else f"{beat} {_STOCK_OPTION}")
    deadline = time.monotonic() + STARTED_WITHIN_S
    while not _has_begun():
        if time.monotonic() > deadline:
            raise SystemExit(f"{scheduler}: nothing was polled within {STARTED_WITHIN_S} s")
        _wait(service, seconds=TICK_S)


def _has_begun() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM poll_runs)")
        return bool(cursor.fetchone()[0])


def _wait(service: Service, *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        service.check()
        time.sleep(min(TICK_S, left))
