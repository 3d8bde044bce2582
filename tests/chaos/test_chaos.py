"""The whole service under random faults loses nothing and makes nothing up; a careless one is caught."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import TypeAlias

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from dev.pytest_services import Services
from prices.ledger.grid import run_id_of
from prices.models import PollRun
from tests.chaos.careless import NEVER_RECOMPUTES, RECOMPUTES_AGAIN
from tests.chaos.checks import AVERAGES_WRONG, CHECKS, NOT_RECOVERED, POINTS_MISSING
from tests.chaos.faults import CLOCK_FAULTS, FAULTS, Step
from tests.chaos.harness import run_chaos
from tests.chaos.plan import make_beat_plan, make_plan
from tests.chaos.processes import MEMBERS
from tests.chaos.report import Report
from tests.chaos.world import Setting
from tests.conftest import MakeJob
from tests.consumers.samples import points_of

SECONDS = 30
CONSUMER_ALONE = {"consumer-1": "consumer"}

# Seconds of faults, then of recovery: more than one test is given elsewhere.
pytestmark = [pytest.mark.django_db(transaction=True)]
RunConsumer: TypeAlias = Callable[..., Report]


@pytest.fixture
def run_consumer(transactional_db: None, topic: str, services: Services, tmp_path: Path) -> RunConsumer:
    """Return a function that runs a consumer alone, through these steps."""

    def run(*steps: Step, seconds: float, **commands: str) -> Report:
        setting = Setting(
            seed=1,
            seconds=seconds,
            folder=tmp_path / "run",
            members=CONSUMER_ALONE,
            commands=commands,
            jobs=0,
        )
        return run_chaos(setting, services, steps=steps)

    return run


@pytest.fixture
def averages_stay() -> Iterator[None]:
    """Let no row of symbol_averages change once it is there."""
    with connection.cursor() as cursor:
        cursor.execute(NEVER_RECOMPUTES)
    yield
    with connection.cursor() as cursor:
        cursor.execute(RECOMPUTES_AGAIN)


def test_random_faults_lose_nothing_and_make_nothing_up(services: Services, tmp_path: Path) -> None:
    assert services.kafka.pid  # else the test is skipped: it takes a real Kafka to stop
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(SECONDS), "--json", str(figures)]
    # Wrong clocks have tests of their own (tests/clocks), and `make chaos`.
    command.append("--without-clocks")
    with subprocess.Popen(command, cwd=settings.BASE_DIR, stdout=PIPE, stderr=STDOUT, text=True) as chaos:
        try:
            told = chaos.communicate()[0]
        finally:
            # It ends its processes and parts first.
            chaos.terminate()
    assert chaos.returncode == 0, told
    report = json.loads(figures.read_text())
    assert set(report["counts"]) == {check.name for check in CHECKS}
    assert not any(report["counts"].values())
    assert set(report["sent"]) >= {"fresh", "late", "duplicates", "poison"}
    assert sum(report["injected"].values()) > 10
    assert report["slots"]["due"] > 0
    assert "not accounted for" not in report["slots"]
    assert min(report["rows"].values()) > 0


def test_offsets_committed_before_the_write_are_caught(run_consumer: RunConsumer) -> None:
    killed = Step(1, "consumer killed while it writes", "consumer-1", 0)
    report = run_consumer(killed, seconds=2, consumer="python -m tests.chaos.careless")
    assert report.injected == {killed.fault: 1}
    assert report.counts[POINTS_MISSING] > 0, report.as_text()


def test_late_events_that_change_no_average_are_caught(
    averages_stay: None, run_consumer: RunConsumer
) -> None:
    report = run_consumer(Step(1, "burst of late events", "traffic", 0), seconds=2)
    assert report.counts[POINTS_MISSING] == 0, report.as_text()
    assert report.counts[AVERAGES_WRONG] > 0, report.as_text()


def test_service_that_does_not_catch_up_is_told(
    topic: str, services: Services, make_job: MakeJob, tmp_path: Path
) -> None:
    now = timezone.now()
    job = make_job()
    PollRun.objects.create(id=run_id_of(job.id, now), job=job, due_at=now, started_at=now)
    points_of(1, {"SIM-A": "100"}, published=False)
    # Without beat it does nothing.
    alone = {"maintenance": "maintenance"}
    setting = Setting(seed=1, seconds=1, folder=tmp_path / "run", members=alone, jobs=0, recovery_s=0.5)
    report = run_chaos(setting, services, steps=[])
    assert report.found[NOT_RECOVERED] == [
        "each claimed slot has an outcome",
        "the outbox is empty",
        "the group's lag is 0",
    ]


def test_plan_follows_from_its_seed_and_holds_every_fault() -> None:
    steps = make_plan(7, SECONDS, members=MEMBERS)
    assert steps == make_plan(7, SECONDS, members=MEMBERS)
    assert steps != make_plan(8, SECONDS, members=MEMBERS)
    assert {step.fault for step in steps} == {fault.name for fault in [*FAULTS, *CLOCK_FAULTS]}
    assert {step.target for step in steps} <= {
        *MEMBERS,
        "PostgreSQL",
        "Kafka",
        "Valkey",
        "backends",
        "averages",
        "traffic",
        "PostgreSQL's clock",
        *(f"{name}'s clock" for name in MEMBERS),
    }


def test_plan_sets_clocks_both_ways_by_seconds_and_by_hours() -> None:
    steps = make_plan(7, 3_600, members=MEMBERS)
    wrong_by = [step.by_s for step in steps if step.fault == "clock of a process wrong"]
    assert min(wrong_by) < -3_600 < -60 < max(by_s for by_s in wrong_by if by_s < 0) <= -2
    assert 2 <= min(by_s for by_s in wrong_by if by_s > 0) < 60 < 3_600 < max(wrong_by) <= 7_200
    set_by = [step.by_s for step in steps if step.fault == "clock of PostgreSQL and all processes set"]
    assert -5 <= min(set_by) < -1 < 1 < max(set_by) <= 5
    steps = make_plan(7, 3_600, members=MEMBERS, with_clocks=False)
    assert not any(step.by_s for step in steps)


def test_plan_for_beats_strikes_each_in_turn() -> None:
    steps = make_beat_plan(7, 300, beats=["beat", "beat-2"])
    assert [step.target for step in steps[:4]] == ["beat", "beat-2", "beat", "beat-2"]
    assert [step.fault for step in steps[:4]] == ["process killed"] * 2 + ["process suspended"] * 2
    # Each is over, and its beat back, before the next.
    pauses = [after.at_s - step.at_s - step.hold_s for step, after in pairwise(steps)]
    assert min(pauses) >= 3
