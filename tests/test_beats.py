"""Two beats as real processes: when the leader goes, the other one leads within three seconds."""

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import pytest
from django.utils import timezone

from dev.pytest_services import Services
from prices.models import BeatTerm, PollRun, RawMarketData
from tests.conftest import MakeJob
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
TAKEOVER = timedelta(seconds=3)
JOBS = 20
SOCKET = ".s.PGSQL.5432"


class Cable:
    """A way to PostgreSQL that can be cut: nothing comes through then, and nobody is told."""

    def __init__(self, database_url: str, folder: Path) -> None:
        parts = urlsplit(database_url)
        query = parse_qs(parts.query)
        if "host" not in query:
            pytest.skip("PostgreSQL was given by its address, and has no socket")
        self._server_path = str(Path(query["host"][0]) / SOCKET)
        self.url = urlunsplit(parts._replace(query=urlencode(query | {"host": [str(folder)]}, doseq=True)))
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._is_whole.clear()

    def mend(self) -> None:
        """Let everything through again, also what was sent meanwhile."""
        self._is_whole.set()

    def close(self) -> None:
        """Take no more connections."""
        self.mend()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._server_path)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self._is_whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            # The other direction ends, too.
            for each in (source, target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def product(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path)
    running.set_command("standby", running.command("beat"))
    yield running
    running.close()


@pytest.fixture
def cable(product: Product) -> Iterator[Cable]:
    # The path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="cable-"))
    made = Cable(product.database_url, folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def start(product: Product, make_job: MakeJob, cable: Cable) -> None:
    """Start a leader behind the cable, a standby, and a poller; wait until jobs are polled."""
    for number in range(JOBS):
        make_job([f"SIM-{number}"])
    direct = product.database_url
    product.start("poller-simulated")
    product.set_environment(DATABASE_URL=cable.url)
    product.start("beat")
    wait_until(BeatTerm.objects.exists, what="the first beat leads")
    product.set_environment(DATABASE_URL=direct, HEARTBEAT_DIR=str(product.log("standby").parent / "other"))
    product.start("standby")
    wait_until(lambda: product.is_healthy("beat"), what="the standby turns")
    wait_until(lambda: PollRun.objects.count() > 3 * JOBS, what="jobs are polled")
    # On a busy machine the first beat may have lost its lead.
    while holder_of(last_term()) != product.pid("beat"):
        product.kill("standby")
        wait_until(lambda: holder_of(last_term()) == product.pid("beat"), what="the first beat leads")
        product.start("standby")
        polled = PollRun.objects.count()
        wait_until(lambda: PollRun.objects.count() > polled + 3 * JOBS, what="jobs are polled")  # noqa: B023


def kill(product: Product, _cable: Cable) -> None:
    product.kill("beat")


def suspend(product: Product, _cable: Cable) -> None:
    product.send_signal("beat", signal.SIGSTOP)


def resume(product: Product, _cable: Cable) -> None:
    product.send_signal("beat", signal.SIGCONT)


def cut(_product: Product, cable: Cable) -> None:
    cable.cut()


def mend(_product: Product, cable: Cable) -> None:
    cable.mend()


def nothing(_product: Product, _cable: Cable) -> None:
    pass


def last_term() -> BeatTerm:
    return BeatTerm.objects.latest("id")


def holder_of(term: BeatTerm) -> int:
    """Return the process id of the beat whose term it was."""
    return int(term.holder.rpartition(":")[2])


def polled_after(moment: datetime) -> int:
    return PollRun.objects.filter(started_at__gt=moment).count()


def longest_hole() -> timedelta:
    """Return the longest time in which a job was not polled."""
    dues: dict[object, list[datetime]] = {}
    for job_id, due_at in PollRun.objects.order_by("id").values_list("job_id", "due_at"):
        dues.setdefault(job_id, []).append(due_at)
    return max(later - earlier for of_job in dues.values() for earlier, later in pairwise(of_job))


@pytest.mark.parametrize(
    ("strike", "undo"), [(kill, nothing), (suspend, resume), (cut, mend)], ids=["killed", "suspended", "cut"]
)
def test_standby_takes_over_from_a_leader_that_is(
    product: Product,
    cable: Cable,
    make_job: MakeJob,
    strike: Callable[[Product, Cable], None],
    undo: Callable[[Product, Cable], None],
) -> None:
    start(product, make_job, cable)
    standby = product.pid("standby")
    strike(product, cable)
    wait_until(lambda: holder_of(last_term()) == standby, what="the standby leads")
    first, second = BeatTerm.objects.order_by("-id")[:2][::-1]
    assert first.until <= second.began_at < first.renewed_at + TAKEOVER
    wait_until(lambda: polled_after(second.began_at) > 3 * JOBS, what="jobs are polled again")
    undo(product, cable)
    undone = timezone.now()
    wait_until(lambda: polled_after(undone) > 3 * JOBS, what="jobs are polled on")
    # Who led before stands by, and does so also with what it had in its hands.
    assert last_term() == second
    assert longest_hole() <= TAKEOVER + timedelta(seconds=1)
    product.stop_all()
    polled = Counter(symbol for raw in RawMarketData.objects.all() for symbol in raw.symbols)
    # A late slot and the one after it may share a price.
    stored = PollRun.objects.filter(state="stored").select_related("job")
    assert polled == Counter(run.job.symbols[0] for run in stored)
    assert set(PollRun.objects.values_list("state", flat=True)) <= {"stored", "shared"}


def test_beat_goes_on_leading_while_redis_hangs(
    product: Product, make_job: MakeJob, services: Services
) -> None:
    make_job(interval=1)
    product.start("poller-simulated", "beat")
    wait_until(lambda: PollRun.objects.count() > 2, what="the job is polled")
    os.kill(services.valkey.pid, signal.SIGSTOP)
    try:
        noted = PollRun.objects.filter(state="skipped", reason="Redis cannot be reached")
        wait_until(lambda: noted.count() > 2, what="slots are noted")
    finally:
        os.kill(services.valkey.pid, signal.SIGCONT)
    answered = timezone.now()
    stored = PollRun.objects.filter(state="stored", started_at__gt=answered)
    wait_until(lambda: stored.count() > 2, what="the job is polled again")
    # What waits for Redis with this one would be lost if another term began.
    assert BeatTerm.objects.count() == 1
