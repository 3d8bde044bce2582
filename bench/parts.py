"""The parts that a benchmark runs on: those whose addresses are given, or its own in a temporary folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django

from dev.embedded.parts import SETTINGS, Embedded, Paths
from dev.guardian import Guardian
from dev.loopback import keep_from_proxies


@contextmanager
def running_parts() -> Iterator[dict[str, int]]:
    """Start what no address is given for, as `make run` has it, and make the tables; end it afterwards.

    Yields the process id of each server that it has started, by the part's name.
    PostgreSQL keeps its promises here (fsync is on), since a benchmark without them tells nothing.
    """
    given = [name for name in SETTINGS if os.environ.get(name)]
    guardian = Guardian()
    folder = Path(tempfile.mkdtemp(prefix="marketdata-bench-"))
    guardian.remove(folder)
    embedded = Embedded(
        Paths(folder),
        durable=True,
        given=given,
        guardian=guardian,
        say=print,
    )
    try:
        keep_from_proxies(os.environ)
        embedded.start()
        os.environ.update(embedded.addresses())
        os.environ |= {"SECRET_KEY": "only-for-benchmarks", "HEARTBEAT_DIR": str(folder / "heartbeats")}
        os.environ["DJANGO_SETTINGS_MODULE"] = "marketdata.settings"
        _make_tables()
        yield {part.name: part.pid for part in embedded.parts.values()}
    finally:
        embedded.stop()
        guardian.close()


def _make_tables() -> None:
    django.setup()
    from django.core.management import call_command  # needs what setup() made
    from django.utils import timezone

    from prices.maintenance.partitions import make_partitions

    call_command("migrate", verbosity=0)
    make_partitions(timezone.now().date())
