"""`make run`: the whole service on this machine, until Ctrl-C."""

import shlex
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dev.checkout import UsageError, check_port, read_port, take_lock
from dev.embedded.part import Part, PartError
from dev.embedded.parts import DATABASE, KAFKA, SETTINGS, Embedded, Paths
from dev.embedded.ports import HOST
from dev.embedded.postgres import PostgreSQL
from dev.environment import (
    HTTPS_ONLY,
    SECRET_KEY,
    Environment,
    keep_secret,
    settings_text,
    write_private,
)
from dev.guardian import ROOT, Guardian
from dev.part_keeper import PartKeeper
from dev.preparation import Commands, PreparationError, Prepared, read_prepared
from dev.ready import announce_when_ready
from dev.screen import Output, address_table, make_console
from dev.stopping import StopRequest, StopRequested
from dev.supervisor import Supervisor

# Begins a line that a process printed: shown as it was, however long.
QUOTE = "  | "
STREAM_PORT = "STREAM_PORT"
MANAGE = (sys.executable, "manage.py")


@dataclass(frozen=True)
class RunPlan:
    """What runs, and where: its data lies in `.data` below `root`."""

    root: Path = ROOT
    procfile: Path = ROOT / "Procfile"
    prepare: tuple[str, ...] = (*MANAGE, "prepare", "--demo", "--json")


def run(plan: RunPlan) -> int:
    """Run until asked to stop, then stop all; return the exit code: 0 if it was asked, else 1."""
    stop = StopRequest()
    stop.listen()
    output = Output(sys.stdout, on_closed=stop.ask)
    runner = _Runner(plan, stop, output)
    try:
        reason = runner.run()
    except StopRequested:
        reason = ""
    except (UsageError, PartError, PreparationError) as error:
        reason = str(error)
    except PermissionError as error:
        reason = f"{error.filename} belongs to another user. Give it to yourself (sudo chown) or remove it."
    runner.say(reason or "Everything is stopped. The data stays in .data/.")
    return 1 if reason else 0


class _Runner:
    def __init__(self, plan: RunPlan, stop: StopRequest, output: Output) -> None:
        self._started = time.monotonic()
        self._plan = plan
        self._stop = stop
        self._output = output
        self._console = make_console(output)
        self._data = plan.root / ".data"
        self._environment = Environment(plan.root)
        self._waited = False

    def say(self, text: str) -> None:
        for line in text.splitlines():
            self._console.print(line, soft_wrap=line.startswith(QUOTE))

    def run(self) -> str:
        with ExitStack() as cleanup:
            ports = self._reserve(cleanup)
            self._start_parts(cleanup)
            self._write_files()
            variables = self._environment.for_processes(**{name: str(port) for name, port in ports.items()})
            prepared = self._prepare(variables)
            self._console.print(address_table(self._rows(prepared)))
            # Another checkout may have taken them meanwhile.
            _check_ports(ports)
            return self._supervise(variables)

    def _reserve(self, cleanup: ExitStack) -> dict[str, int]:
        port = read_port(self._environment.text("PORT"))
        # Beside the web server's, wherever that is.
        stream_port = read_port(self._environment.text(STREAM_PORT), variable=STREAM_PORT, default=port + 1)
        ports = {"PORT": port, STREAM_PORT: stream_port}
        self._url = f"http://{HOST}:{port}"
        self._data.mkdir(mode=0o700, exist_ok=True)
        lock = cleanup.enter_context(take_lock(self._data, url=self._url, check=self._wait))
        _check_ports(ports)
        self._guardian = Guardian(inherit=[lock.fileno()])
        cleanup.callback(self._guardian.close)
        return ports

    def _wait(self) -> None:
        if not self._waited:
            self._waited = True
            self.say("Waiting until what a killed run has left is ended ...")
        self._stop.check()

    def _start_parts(self, cleanup: ExitStack) -> None:
        _check_kafka(self._environment)
        self._embedded = Embedded(
            Paths(self._data),
            durable=True,
            given=self._environment.given(SETTINGS),
            guardian=self._guardian,
            say=self.say,
        )
        if not self._embedded.parts:
            return
        began = time.monotonic()
        self.say(f"Starting {_titles(self._embedded)} ...")
        cleanup.callback(self._embedded.stop)
        self._embedded.start(check=self._stop.check)
        self.say(f"Started {_titles(self._embedded)} in {time.monotonic() - began:.1f} s.")

    def _write_files(self) -> None:
        self._environment.add(self._embedded.addresses())
        self._environment.add(
            {
                SECRET_KEY: keep_secret(self._data / "secret_key"),
                HTTPS_ONLY: "false",
                # By default one folder of the machine, which other checkouts and users share.
                "HEARTBEAT_DIR": str(self._data / "heartbeats"),
            }
        )
        self._write_file("env", settings_text(self._environment.shared()))
        database = self._embedded.parts.get(DATABASE)
        if isinstance(database, PostgreSQL):
            command = f'#!/bin/sh\nexec {shlex.join(database.psql)} "$@"\n'
            self._write_file("psql", command, mode=0o700)

    def _write_file(self, name: str, text: str, *, mode: int = 0o600) -> None:
        self._guardian.remove(self._data / name)
        write_private(self._data / name, text, mode=mode)

    def _prepare(self, variables: dict[str, str]) -> Prepared:
        commands = Commands(self._plan.root, variables, self._guardian, check=self._stop.check)
        self.say("Preparing tables, topic, admin user and demo job ...")
        return read_prepared(commands.run(self._plan.prepare))

    def _rows(self, prepared: Prepared) -> list[tuple[str, str]]:
        parts = [(part.name, _address(part)) for part in self._embedded.parts.values()]
        return [
            ("Service", f"{self._url}/"),
            ("API docs", f"{self._url}/docs"),
            ("Admin", f"{self._url}/admin/"),
            ("", self._login(prepared)),
            *([("Demo job", f"{self._url}/jobs/{prepared.demo_job}")] if prepared.demo_job else []),
            *parts,
            ("Commands", ".venv/bin/python manage.py ... (in another terminal)"),
        ]

    def _login(self, prepared: Prepared) -> str:
        if self._environment.text("ADMIN_PASSWORD"):
            return f"user {prepared.username}, password from ADMIN_PASSWORD"
        if prepared.password is None:
            return f"user {prepared.username} (password lost? manage.py changepassword {prepared.username})"
        return f"user {prepared.username}, password {prepared.password} (shown this once)"

    def _supervise(self, variables: dict[str, str]) -> str:
        supervisor = Supervisor(
            self._plan.procfile,
            environment=variables,
            guardian=self._guardian,
            output=self._output,
            each_turn=PartKeeper(self._embedded.parts.values()).look,
        )
        announce_when_ready(self._url, started=self._started, say=supervisor.say)
        return supervisor.run(self._stop)


def _check_ports(ports: dict[str, int]) -> None:
    for variable, port in ports.items():
        check_port(port, variable=variable)


def _check_kafka(environment: Environment) -> None:
    """Refuse to start a Kafka of this run's own for a service that would ask it for TLS or a password."""
    protocol = environment.text("KAFKA_SECURITY_PROTOCOL")
    if protocol not in ("", "PLAINTEXT") and not environment.text(KAFKA):
        raise UsageError(
            f"KAFKA_SECURITY_PROTOCOL is {protocol} and {KAFKA} is not set: the Kafka that `make run` starts"
            " takes everybody without TLS. Set both of them, or none."
        )


def _titles(embedded: Embedded) -> str:
    titles = [part.title for part in embedded.parts.values()]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if titles[1:] else titles)


def _address(part: Part) -> str:
    return ".data/psql (a psql that is connected)" if isinstance(part, PostgreSQL) else part.address
