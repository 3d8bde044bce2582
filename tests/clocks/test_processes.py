"""The service's own processes with clocks that are wrong, each on its own or PostgreSQL's with them."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from dev.pytest_services import Services
from prices.clock import differing_clocks
from prices.database.uuid7 import new_ids, time_of_id
from prices.models import BeatTerm, PollGap, PollRun
from tests.clocks.wall_clock import NoCompilerError, WallClock
from tests.conftest import MakeJob
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL's user can read, too."""
    made = Path(tempfile.mkdtemp(prefix="clocks-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def make_clock(folder: Path, name: str) -> WallClock:
    (folder / name).mkdir()
    try:
        clock = WallClock(folder / name)
    except NoCompilerError as error:
        pytest.skip(str(error))
    for file in (folder / name).iterdir():
        file.chmod(0o755)
    return clock


@pytest.fixture
def product(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path)
    yield running
    running.close()


def test_processes_whose_clocks_differ_poll_each_slot(
    product: Product, make_job: MakeJob, folder: Path
) -> None:
    wrong = {"beat": 3600, "poller-simulated": 8, "maintenance": -8}
    for name, seconds in wrong.items():
        clock = make_clock(folder, name)
        clock.set_ahead(timedelta(seconds=seconds))
        product.set_environment(**clock.environment)
        product.start(name)
    began = timezone.now()
    make_job(interval=5)
    runs = PollRun.objects.filter(due_at__gt=began, state="stored").order_by("id")
    wait_until(lambda: has_row_of_slots(runs, interval_s=5), what="three slots in a row are polled")
    wait_until(lambda: len(differing_clocks()) == len(wrong), what="each process has noted its clock")
    told = {clock.process.partition("@")[0]: clock.ahead_s for clock in differing_clocks()}
    assert told == pytest.approx(wrong, abs=1)


def has_row_of_slots(runs: QuerySet[PollRun], *, interval_s: int) -> bool:
    """Return whether three slots in a row were polled: a busy machine may miss one, by any clock."""
    due = sorted(runs.values_list("due_at", flat=True))
    return any(
        third - first == 2 * timedelta(seconds=interval_s) for first, third in zip(due, due[2:], strict=False)
    )


@pytest.fixture
def clock_of_all(
    services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> Iterator[WallClock]:
    """Yield the clock of PostgreSQL, and of what is started with its environment."""
    clock = make_clock(folder, "all")
    with monkeypatch.context() as shifted:
        for name, value in clock.environment.items():
            shifted.setenv(name, value)
        restart(services)
    yield clock
    clock.set_ahead(timedelta())
    restart(services)


def restart(services: Services) -> None:
    services.postgres.stop()
    services.postgres.start()
    connection.close()


def test_jobs_are_polled_on_once_a_clock_that_was_ahead_is_right(
    clock_of_all: WallClock, product: Product, make_job: MakeJob
) -> None:
    make_job(interval=1)
    product.set_environment(**clock_of_all.environment)
    product.start("beat", "poller-simulated", "maintenance")
    runs = PollRun.objects.filter(state="stored")
    wait_until(lambda: runs.count() >= 2, what="the job is polled")
    clock_of_all.set_ahead(HOUR)
    ahead = runs.filter(due_at__gt=timezone.now() + HOUR / 2)
    wait_until(lambda: ahead.count() >= 3, what="it is polled by the clock that is ahead")
    far = PollGap.objects.filter(to_due__gt=timezone.now() + HOUR / 2)
    wait_until(far.exists, what="slots of the time to come are accounted for")
    clock_of_all.set_ahead(timedelta())
    set_right_at = timezone.now()
    later = runs.filter(due_at__range=(set_right_at, set_right_at + HOUR / 2))
    wait_until(lambda: later.count() >= 3, what="the job is polled on")
    wait_until(lambda: not far.exists(), what="its gaps of the time to come are taken back")
    assert BeatTerm.objects.get(clock_ahead_s__gt=0).clock_ahead_s == pytest.approx(3600, abs=5)


def test_ids_go_back_with_the_clock_in_a_session_that_goes_on(clock_of_all: WallClock) -> None:
    clock_of_all.set_ahead(HOUR)
    (ahead,) = new_ids(1)
    assert time_of_id(ahead) > timezone.now() + HOUR / 2
    clock_of_all.set_ahead(timedelta())
    assert time_of_id(new_ids(2)[-1]) < timezone.now() + HOUR / 2
