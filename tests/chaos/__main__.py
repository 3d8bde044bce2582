"""`python -m tests.chaos`: one run on parts of its own, told as a table. Exit 1 where a count is not 0."""

import argparse
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import django

from dev.embedded.part import PartError
from dev.embedded.parts import DATABASE, KAFKA, REDIS, Embedded, Paths
from dev.guardian import Guardian
from dev.loopback import keep_from_proxies
from dev.pytest_services import FIXED, Service, Services
from tests.chaos.clocks import Clocks
from tests.clocks.wall_clock import NoCompilerError

if TYPE_CHECKING:
    from tests.chaos.report import Report

TOPIC, PARTITIONS = "chaos", "6"


def main() -> int:
    """Run once, print the table, and give the exit code."""
    options = _options()
    # As Ctrl-C does: the service's processes and the parts are ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(
        f"seed {options.seed}, {options.seconds:g} s; the processes' logs are in {options.folder}", flush=True
    )
    try:
        clocks = _clocks(options)
        with _parts(options.folder / "parts", clocks) as services:
            report = _run(options, services, clocks)
    except PartError as error:
        print(error, file=sys.stderr)
        return 2
    if report.is_sound and not report.revived:
        shutil.rmtree(options.folder)
    return 0 if report.is_sound else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="How long faults are injected (60).")
    parser.add_argument("--seed", type=int, help="What is injected when, and what is sent, follow from it.")
    parser.add_argument(
        "--beats-only", action="store_true", help="Strike the two beats in turn, nothing else."
    )
    parser.add_argument(
        "--jobs", type=int, help="How many poll jobs there are (30; 1,000 with --beats-only)."
    )
    parser.add_argument("--interval", type=int, default=6, help="Of each, with --beats-only, in seconds (6).")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures there as well.")
    parser.add_argument("--without-clocks", action="store_true", help="Leave all clocks right.")
    options = parser.parse_args()
    options.seed = random.randrange(10**6) if options.seed is None else options.seed
    options.folder = Path(tempfile.mkdtemp(prefix="marketdata-chaos-"))
    return options


def _clocks(options: argparse.Namespace) -> Clocks | None:
    if options.beats_only or options.without_clocks:
        return None
    try:
        return Clocks(options.folder / "clocks")
    except NoCompilerError as error:
        print(f"No clock is set: {error}.", flush=True)
        return None


@contextmanager
def _parts(folder: Path, clocks: Clocks | None) -> Iterator[Services]:
    guardian = Guardian()
    # Kafka's and PostgreSQL's data are of no use afterwards.
    guardian.remove(folder)
    embedded = Embedded(
        Paths(folder),
        durable=False,
        given=(),
        guardian=guardian,
        say=lambda text: print(text, flush=True),
    )
    try:
        keep_from_proxies(os.environ)
        if clocks is not None:
            embedded.parts[DATABASE].variables |= clocks.of_postgres
            embedded.parts[KAFKA].variables |= clocks.of_kafka
        embedded.start()
        parts = embedded.parts
        yield Services(*(Service(parts[name].address, parts[name]) for name in (DATABASE, REDIS, KAFKA)))
    finally:
        embedded.stop()
        guardian.close()


def _run(options: argparse.Namespace, services: Services, clocks: Clocks | None) -> "Report":
    os.environ |= FIXED | {
        DATABASE: services.postgres.address,
        REDIS: services.valkey.address,
        KAFKA: services.kafka.address,
        "KAFKA_TOPIC": TOPIC,
        "KAFKA_PARTITIONS": PARTITIONS,
        "KAFKA_CONSUMER_GROUP": TOPIC,
        "DJANGO_SETTINGS_MODULE": "marketdata.settings",
        "LOG_LEVEL": "WARNING",
    }
    django.setup()
    # These need Django's settings.
    from tests.chaos.checks import BEAT_CHECKS
    from tests.chaos.harness import prepare, run_chaos
    from tests.chaos.plan import make_beat_plan, make_plan
    from tests.chaos.processes import BEATS_ONLY, MEMBERS
    from tests.chaos.world import Setting

    # What each stopped job has missed is in the table.
    logging.getLogger("prices").setLevel(logging.ERROR)
    prepare()
    setting = Setting(
        seed=options.seed,
        seconds=options.seconds,
        folder=options.folder / "run",
        members=BEATS_ONLY if options.beats_only else MEMBERS,
        jobs=options.jobs or (1_000 if options.beats_only else 30),
        interval=options.interval if options.beats_only else None,
    )
    if options.beats_only:
        steps = make_beat_plan(options.seed, options.seconds, beats=["beat", "beat-2"])
        report = run_chaos(setting, services, steps=steps, checks=BEAT_CHECKS)
    else:
        with_clocks = clocks is not None
        steps = make_plan(options.seed, options.seconds, members=setting.members, with_clocks=with_clocks)
        report = run_chaos(setting, services, steps=steps, clocks=clocks)
    print(report.as_text())
    if options.json:
        report.write_json(options.json)
    return report


if __name__ == "__main__":
    sys.exit(main())
