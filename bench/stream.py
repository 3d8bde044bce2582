"""The stream's server with thousands of clients: `python -m bench stream`.

Averages are stored at a steady rate by this process, as the consumer stores them; the stream's server is a
process, as the Procfile has it, and so are the clients, each with a symbol of its own choice. An event's time
is from its id, which is made just before its transaction, to the client: the writing is in it.

Then one client more has all symbols, and is stopped (SIGSTOP): what it costs, and when it is cut off. And how
long a look takes while there is nothing new, on tables with as many rows as by then.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from django.conf import settings

from bench.machine import describe_machine
from bench.service import Meter, Service
from bench.stream_clients import symbol_name
from bench.stream_events import SteadyWriter
from dev.embedded.ports import free_port
from prices.stream import reading

WARM_UP_S = 5
DRAIN_S = 3
LOOKS = 200
READY_WITHIN_S = 60
# Figures stay below these.
GOALS = {
    "lost": 1,
    "p99_ms": 500.0,
    "memory_mb": 300.0,
    "stopped_mb": 1.0,
    "cut_off_s": 15.0,
    "look_ms": 2.0,
}


@dataclass(frozen=True)
class Plan:
    """How many clients, of how many symbols, and what is stored for how long."""

    clients: int
    symbols: int
    rate: int
    seconds: int


@dataclass(frozen=True)
class Loaded:
    """What all clients got, and what that took.

    `lost` are events that did not reach each client of their symbol once. Times are from the moment of an
    event's id to a client. `cpu` is in cores, by process.
    """

    events: int
    arrivals: int
    lost: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    memory_mb: float
    client_kb: float
    cpu: Mapping[str, float]


@dataclass(frozen=True)
class Stopped:
    """What the server keeps for a client that is stopped, and after how long it lets go."""

    cut_off_s: float
    stopped_mb: float


def run(plan: Plan, *, parts: Mapping[str, int], json_file: Path | None) -> int:
    """Measure and print; return the exit code, 1 where a goal is missed."""
    _say(f"{describe_machine()}\n{plan.clients:,} clients, {plan.symbols} symbols, {plan.rate:,} events/s\n")
    settings.STREAM_PORT = free_port()
    os.environ["STREAM_PORT"] = str(settings.STREAM_PORT)
    writer = SteadyWriter(symbols=plan.symbols)
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        service.start("stream")
        _wait_until(_is_listening, what="the stream's server")
        loaded = _measure_load(plan, service, writer, parts)
        stopped = _measure_stopped(plan, service, writer)
    writer.close()
    look_ms = _look_ms()
    _say(_table(plan, loaded, stopped, look_ms))
    told = asdict(loaded) | asdict(stopped) | {"look_ms": look_ms}
    missed = [name for name, most in GOALS.items() if told[name] >= most]
    _say(f"\ngoals missed: {', '.join(missed) or 'none'}")
    if json_file:
        about = {"machine": describe_machine(), "plan": asdict(plan)}
        json_file.write_text(json.dumps(about | told | {"missed": missed}, indent=2))
    return 1 if missed else 0


def _measure_load(plan: Plan, service: Service, writer: SteadyWriter, parts: Mapping[str, int]) -> Loaded:
    before = service.memory()["stream"]
    with _clients(plan) as clients:
        writer.write(rate=plan.rate, seconds=WARM_UP_S)
        meter = Meter(service, {**parts, "clients": clients.pid})
        own_cpu_s, began_s = time.process_time(), time.monotonic()
        stored = writer.write(rate=plan.rate, seconds=plan.seconds)
        used = meter.read()
        writer_cpu = (time.process_time() - own_cpu_s) / (time.monotonic() - began_s)
        # What was stored last is still on its way.
        time.sleep(DRAIN_S)
        service.check()
        arrived = [each for each in _arrivals(clients) if each[1] in stored]
    memory = used["stream"].memory
    assert memory is not None
    cuts = statistics.quantiles([took_ms for took_ms, _event_id in arrived], n=100)
    return Loaded(
        events=len(stored),
        arrivals=len(arrived),
        lost=_lost(plan, stored, arrived),
        p50_ms=cuts[49],
        p99_ms=cuts[98],
        most_ms=max(arrived)[0],
        memory_mb=memory.peak_mb,
        client_kb=(memory.last_mb - before.last_mb) * 1024 / plan.clients,
        cpu={name: each.cpu for name, each in used.items()} | {"writer": writer_cpu},
    )


def _lost(plan: Plan, stored: Mapping[str, str], arrived: Sequence[tuple[float, str]]) -> int:
    """Return how many events did not reach each client of their symbol once."""
    clients_of = Counter(symbol_name(number % plan.symbols) for number in range(plan.clients))
    times = Counter(event_id for _took_ms, event_id in arrived)
    return sum(times[event_id] != clients_of[symbol] for event_id, symbol in stored.items())


@contextmanager
def _clients(plan: Plan) -> Iterator["subprocess.Popen[str]"]:
    command = ["-m", "bench.stream_clients", settings.STREAM_PORT, plan.clients, plan.symbols]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=settings.BASE_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if _line_of(process) != "open\n":
            raise SystemExit("the clients could not be opened")
        yield process
    finally:
        process.kill()
        process.wait()


def _arrivals(clients: "subprocess.Popen[str]") -> list[tuple[float, str]]:
    assert clients.stdin is not None
    clients.stdin.write("\n")
    clients.stdin.flush()
    return [(took_ms, event_id) for took_ms, event_id in json.loads(_line_of(clients))]


def _line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line: str = process.stdout.readline()
    return line


# Takes all symbols until it is stopped.
_READER = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(b"GET /prices/stream?symbols=* HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n")
while connection.recv(65536):
    pass
"""


def _measure_stopped(plan: Plan, service: Service, writer: SteadyWriter) -> Stopped:
    """Stop a client that has all symbols, and see what the server keeps for it and when it lets go."""
    server = psutil.Process(service.pid("stream"))
    reader = subprocess.Popen([sys.executable, "-c", _READER, str(settings.STREAM_PORT)])
    try:
        _wait_until(lambda: _streams(server) == 1, what="the reader's stream")
        writer.write(rate=plan.rate, seconds=WARM_UP_S)
        before = most = server.memory_info().rss
        reader.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while _streams(server):
            if time.monotonic() - began > READY_WITHIN_S:
                raise SystemExit("the client that is stopped is not cut off")
            writer.write(rate=plan.rate, seconds=0.2)
            most = max(most, server.memory_info().rss)
        return Stopped(cut_off_s=time.monotonic() - began, stopped_mb=(most - before) / 2**20)
    finally:
        reader.kill()
        reader.wait()


def _streams(server: psutil.Process) -> int:
    """Return how many connections the server's port has."""
    return sum(
        each.laddr.port == settings.STREAM_PORT and each.status == psutil.CONN_ESTABLISHED
        for each in server.net_connections("tcp")
    )


def _look_ms() -> float:
    """Return the median of a reader's look while nothing is new."""
    position = reading.newest_position()
    seconds = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        reading.read_clock_and_waiting()
        reading.read_page(position, symbols=None)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


def _wait_until(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} is not there after {READY_WITHIN_S} s")
        time.sleep(0.1)


def _is_listening() -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", settings.STREAM_PORT)):
        return True
    return False


def _table(plan: Plan, loaded: Loaded, stopped: Stopped, look_ms: float) -> str:
    cpu = ", ".join(f"{name} {share:.2f}" for name, share in loaded.cpu.items())
    rows = [
        ("events stored, a second", f"{loaded.events / plan.seconds:,.0f}", ""),
        ("events sent to clients, a second", f"{loaded.arrivals / plan.seconds:,.0f}", ""),
        ("lost or doubled", f"{loaded.lost}", "0"),
        ("from before its transaction to the client, median", f"{loaded.p50_ms:.0f} ms", ""),
        ("p99", f"{loaded.p99_ms:.0f} ms", "500"),
        ("most", f"{loaded.most_ms:.0f} ms", ""),
        ("memory of the server, peak", f"{loaded.memory_mb:.0f} MB", "300"),
        ("of that for each client", f"{loaded.client_kb:.0f} KB", ""),
        ("CPU, in cores", cpu, ""),
        ("a stopped client costs", f"{stopped.stopped_mb:.2f} MB", "1"),
        ("and is cut off after", f"{stopped.cut_off_s:.1f} s", "15"),
        ("a look at tables with nothing new", f"{look_ms:.2f} ms", "2"),
    ]
    head = ["| | | goal, below |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {name} | {value} | {goal} |" for name, value, goal in rows)])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
