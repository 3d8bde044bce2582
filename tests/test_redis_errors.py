"""Redis answers with errors: processes wait, say so once, and go on when it ends."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
import redis
import requests
from django.utils import timezone

from prices.models import PollRun
from tests.conftest import MakeJob
from tests.product import Product
from tests.redis_troubles import (
    USER,
    Trouble,
    admin_of,
    deleted_user,
    failed_snapshot,
    full,
    locked_out,
    own_user,
    reconnecting,
    refusing,
    replica,
    stale_replica,
    too_few_replicas,
    wrong_type,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
PROCESSES = ["poller-simulated", "maintenance", "beat", "web"]
QUEUE = "poll.simulated"
NOPERM = f"NOPERM User {USER} has no permissions to run the"
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled"
# What /readyz says of a trouble, the trouble, and the process that meets it first.
Case: TypeAlias = tuple[str, Trouble, str]
TROUBLES: list[Case] = [
    ("READONLY You can't write against a read only replica", replica, "beat"),
    (f"{NOPERM} 'brpop' command", refusing("brpop"), "poller-simulated"),
    (WRONGPASS, locked_out, "beat"),
]
MORE_TROUBLES: list[Case] = [
    (WRONGPASS, deleted_user, "beat"),
    ("MASTERDOWN Link with MASTER is down", stale_replica, "beat"),
    ("MISCONF ", failed_snapshot, "beat"),
    ("OOM command not allowed when used memory > 'maxmemory'", full, "beat"),
    ("NOREPLICAS Not enough good replicas to write", too_few_replicas, "beat"),
    (f"{NOPERM} 'lpush' command", refusing("lpush"), "beat"),
    (f"{NOPERM} 'ping' command", reconnecting("ping"), "poller-simulated"),
    (f"{NOPERM} 'select' command", reconnecting("select"), "beat"),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", wrong_type(QUEUE), "beat"),
]


@pytest.fixture
def product(partitions: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path, FINNHUB_API_KEY="any-key-will-do")
    with ExitStack() as stack:
        admin = stack.enter_context(admin_of(running.redis_url))
        user = stack.enter_context(own_user(admin))
        running.set_environment(REDIS_URL=running.redis_url.replace("redis://", f"redis://{user}"))
        stack.callback(running.close)
        yield running


@pytest.fixture
def admin(product: Product) -> Iterator[redis.Redis]:
    with admin_of(product.redis_url) as client:
        yield client


def start(product: Product, make_job: MakeJob, *names: str) -> None:
    make_job(interval=1)
    product.start(*names)
    wait_for_stored_poll()


def wait_for_stored_poll() -> None:
    began = timezone.now()
    stored = PollRun.objects.filter(state="stored", started_at__gt=began)
    wait_until(stored.exists, what="the job is polled")


def redis_by_readyz(product: Product) -> str:
    body = requests.get(f"http://{product.address}/readyz", timeout=10).json()
    parts: dict[str, str] = body["parts"]
    # On a busy machine another part may be late.
    assert body["status"] == ("ready" if set(parts.values()) == {"ok"} else "degraded"), parts
    return parts["redis"]


def check_web(product: Product) -> None:
    """Ask for a stored price, and for a job: neither needs Redis."""
    address = f"http://{product.address}/prices"
    assert requests.get(f"{address}/latest?symbol=SIM-A", timeout=10).json()["symbol"] == "SIM-A"
    job = {"symbols": ["AAPL"], "interval": 60, "provider": "finnhub"}
    created = requests.post(f"{address}/poll", json=job, timeout=10)
    assert created.status_code == 202
    body = {"job_id": created.json()["job_id"]}
    assert requests.post(f"{address}/stop", json=body, timeout=10).json()["status"] == "stopped"


def outages(product: Product, name: str) -> tuple[int, int]:
    """Return how many outages of Redis a process has told of, and how many ends."""
    log = product.log(name).read_text()
    return log.count("redis_away"), log.count("redis_back")


@pytest.mark.parametrize("troubles", [TROUBLES, pytest.param(MORE_TROUBLES, marks=pytest.mark.soak)])
def test_processes_wait_while_redis_answers_with_errors(
    product: Product, admin: redis.Redis, make_job: MakeJob, troubles: list[Case]
) -> None:
    start(product, make_job, *PROCESSES)
    wait_until(lambda: product.is_healthy("web"), what="web is ready")
    for words, trouble, name in troubles:
        known, _ended = outages(product, name)
        began = timezone.now()
        with trouble(admin):
            wait_until(lambda: redis_by_readyz(product).startswith(f"answers: {words}"), what=words)  # noqa: B023
            check_web(product)
            wait_until(lambda: outages(product, name)[0] > known, what=f"{name} tells of {words}")  # noqa: B023
            if name == "beat":
                noted = PollRun.objects.filter(state="skipped", started_at__gt=began)
                wait_until(noted.filter(reason__startswith=f"Redis answers: {words}").exists, what=words)
        wait_for_stored_poll()
        wait_until(lambda: redis_by_readyz(product) == "ok", what="Redis is well")
        wait_until(lambda: all(len(set(outages(product, each))) == 1 for each in PROCESSES), what="its end")
        assert outages(product, name)[0] == known + 1
    # A Redis that has lost everything, as one to which another has failed over: nobody need notice.
    told = {name: outages(product, name) for name in PROCESSES}
    admin.flushall()
    wait_for_stored_poll()
    assert told == {name: outages(product, name) for name in PROCESSES}
    assert {name: product.exit_code(name) for name in PROCESSES} == dict.fromkeys(PROCESSES)
    for name in PROCESSES:
        assert "Traceback" not in product.log(name).read_text()
    assert product.stop_all() == dict.fromkeys(PROCESSES, 0)


class Wire:
    """A way to Redis whose host can vanish: what is connected then hears nothing more."""

    def __init__(self, url: str) -> None:
        self._server = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._has_vanished = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def vanish(self) -> None:
        """Let nothing through what is connected now."""
        gone, self._has_vanished = self._has_vanished, threading.Event()
        gone.set()

    def close(self) -> None:
        """End all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._ends += client, server
            for source, target in ((client, server), (server, client)):
                pump = (source, target, self._has_vanished)
                threading.Thread(target=self._pump, args=pump, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, has_vanished: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if has_vanished.is_set():
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_worker_gives_up_a_redis_whose_host_vanished(product: Product, make_job: MakeJob) -> None:
    wire = Wire(product.redis_url)
    direct = product.redis_url
    product.set_environment(REDIS_URL=direct.replace(f":{urlsplit(direct).port}/", f":{wire.port}/"))
    product.start("poller-simulated")
    product.set_environment(REDIS_URL=direct)
    start(product, make_job, "beat")
    wire.vanish()
    began = timezone.now()
    wait_for_stored_poll()
    product.close()
    wire.close()
    assert timezone.now() - began < timedelta(seconds=20)


def test_worker_ends_when_told_while_redis_refuses(product: Product, admin: redis.Redis) -> None:
    with refusing("brpop")(admin):
        product.start("poller-simulated")
        wait_until(lambda: outages(product, "poller-simulated")[0] == 1, what="it waits")
        assert product.is_healthy("poller-simulated")
        assert product.stop("poller-simulated") == 0


def no_messages() -> list[str | bytes]:
    """Return what is no message, and messages with a part that is none: each ended a worker or came back."""
    sound = {
        "body": base64.b64encode(b'[[["no id"]], {}, {}]').decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "prices.tasks.poll_jobs", "id": "1"},
        "properties": {"delivery_info": {}, "delivery_tag": "1", "body_encoding": "base64"},
    }
    changes: list[dict[str, Any]] = [
        {"headers": {"task": []}},
        {"headers": []},
        {"content-type": [], "headers": {}},
        {"properties": "none"},
        {"body": base64.b64encode(b"[" * 100_000).decode()},
        {"body": base64.b64encode(b"[1, 2, 3, 4]").decode()},
    ]
    return ["no message", b"\xff", "[" * 100_000, *(json.dumps(sound | change) for change in changes)]


def test_what_is_no_message_is_passed_over(product: Product, admin: redis.Redis, make_job: MakeJob) -> None:
    start(product, make_job, "poller-simulated", "beat")
    for message in no_messages():
        admin.lpush(QUEUE, message)
    wait_until(lambda: admin.llen(QUEUE) == 0, what="the queue is empty")
    wait_for_stored_poll()
    assert product.exit_code("poller-simulated") is None
    assert "worker.message_unreadable" in product.log("poller-simulated").read_text()
