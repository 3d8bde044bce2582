"""One chaos run: start, inject, let recover, count."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import LiteralString
from uuid import UUID

from confluent_kafka import KafkaException
from django.core.management import call_command
from django.db import connection

from dev.pytest_services import Services
from prices.jobs.services import create_job, stop_job
from prices.publishing.kafka_clients import make_admin
from prices.publishing.topic import ensure_topic
from tests.chaos.checks import CHECKS, Check
from tests.chaos.clocks import Clocks
from tests.chaos.faults import BY_NAME, Step
from tests.chaos.log import read_log
from tests.chaos.report import Report
from tests.chaos.stream import has_seen_all
from tests.chaos.world import SHARED_SYMBOLS, Setting, World
from tests.consumers.running import messages_left
from tests.waiting import wait_until

TURN_S = 0.05
STARTED_WITHIN_S = 60.0

# A stop waits for fetches that have begun.
STOPPED_AT_ONCE = 8

# What is dated so far ahead is waited for.
WAITED_FOR_S = 10.0
_FURTHEST_PENDING: LiteralString = """
    SELECT extract(epoch FROM max(uuid_extract_timestamp(id)) - clock_timestamp())::float
    FROM price_points WHERE published_at IS NULL
"""

# A process has begun to work once its table has a row.
_WORKING: dict[str, LiteralString] = {
    "poller-simulated": "SELECT EXISTS (SELECT FROM raw_market_data)",
    "consumer": "SELECT EXISTS (SELECT FROM symbol_averages)",
}


def prepare() -> None:
    """Make the tables and the topic."""
    call_command("migrate", verbosity=0)
    ensure_topic(make_admin())


def run_chaos(
    setting: Setting,
    services: Services,
    *,
    steps: Sequence[Step],
    checks: Sequence[Check] = CHECKS,
    clocks: Clocks | None = None,
) -> Report:
    """Run the service, do to it what the steps say, let it recover, and count what is wrong.

    `clocks`: of PostgreSQL, which was started with them, and of the service's processes.
    """
    world = World(setting, services, clocks=clocks)
    try:
        with world.timed("to start"):
            _begin(world)
        with world.timed("of faults, until the last is undone"):
            _inject(world, steps)
        with world.timed("to recover"):
            _recover(world)
        world.stream_client.finish()
        with world.timed("to stop"):
            world.fleet.stop_all()
        world.log = read_log()
        return Report.of(world, {check.name: check.find(world) for check in checks})
    finally:
        world.close()


def _begin(world: World) -> None:
    interval = world.setting.interval
    for number in range(world.setting.jobs):
        shared = [] if interval else SHARED_SYMBOLS[number % 8 : number % 8 + 1]
        symbols = [f"SIM-JOB-{number}", *shared]
        create_job(symbols=symbols, interval=interval or 1 + number % 2, provider="simulated")
    if world.fleet.of_kind("stream"):
        world.stream_client.start()
    # Django's own connection would end with the first fault.
    connection.close()
    world.fleet.start_all()
    if not interval:
        world.traffic.start()
    for process, statement in _WORKING.items():
        if world.fleet.of_kind(process):
            what = f"{process} works; see {world.setting.folder}"
            wait_until(partial(world.database.value, statement), timeout_s=STARTED_WITHIN_S, what=what)
    # What was due before a beat led is missed by nobody.
    led = "SELECT id, (SELECT min(began_at) FROM beat_terms) FROM poll_jobs"
    world.accounted_from = dict(world.database.rows(led))


def _inject(world: World, steps: Sequence[Step]) -> None:
    world.struck_from = world.database.value("SELECT now()")
    began = time.monotonic()
    under_way: list[Future[None]] = []
    # Each fault in a thread of its own: while one holds, others strike.
    with ThreadPoolExecutor(max_workers=max(len(steps), 1)) as pool:
        for step in steps:
            _watch(world, until=began + step.at_s)
            if step.target not in world.busy:
                world.busy.add(step.target)
                under_way.append(pool.submit(_strike, world, step))
        _watch(world, until=began + world.setting.seconds)
    for each in under_way:
        each.result()


def _watch(world: World, *, until: float) -> None:
    while time.monotonic() < until:
        world.fleet.revive(without=world.busy)
        time.sleep(TURN_S)


def _strike(world: World, step: Step) -> None:
    try:
        if BY_NAME[step.fault].inject(world, step):
            world.injected[step.fault] += 1
    finally:
        world.busy.discard(step.target)


def _recover(world: World) -> None:
    world.traffic.finish()
    world.stopped_at = world.database.value("SELECT now()")
    with ThreadPoolExecutor(STOPPED_AT_ONCE) as pool:
        list(pool.map(_stop, world.accounted_from))
    world.ended_at = world.database.value("SELECT now()")
    _have_times_come(world)
    deadline = time.monotonic() + world.setting.recovery_s
    for name, reached in _RECOVERED.items():
        while not reached(world):
            if time.monotonic() > deadline:
                world.unreached.append(name)
                break
            world.fleet.revive()
            time.sleep(TURN_S)


def _have_times_come(world: World) -> None:
    """Let the time pass in a moment for which points wait that a clock which was ahead has dated.

    The outbox sends them in their time, and no price may be lost.
    """
    (furthest,) = world.database.rows(_FURTHEST_PENDING)[0]
    if world.clocks is not None and furthest is not None and furthest > WAITED_FOR_S:
        world.clocks.pass_over(timedelta(seconds=furthest + 1))


def _stop(job_id: UUID) -> None:
    try:
        stop_job(job_id)
    finally:
        connection.close()


def _is_empty(rows: LiteralString, world: World) -> bool:
    return not world.database.rows(rows)


def _all_consumed(_world: World) -> bool:
    try:
        return messages_left(wait_s=1) == 0
    except KafkaException:
        return False


# In this order: what the outbox sends last has to be consumed as well.
_RECOVERED: dict[str, Callable[[World], bool]] = {
    "each claimed slot has an outcome": partial(
        _is_empty, "SELECT 1 FROM poll_runs WHERE state = 'claimed' LIMIT 1"
    ),
    "the outbox is empty": partial(
        _is_empty, "SELECT 1 FROM price_points WHERE published_at IS NULL LIMIT 1"
    ),
    "the group's lag is 0": _all_consumed,
    "the stream's client has seen all": has_seen_all,
}
