"""What can be done to the service. A fault says whom it may strike, how long it holds, and how it is done.

`inject` ends with the fault undone: the process runs again, the part is back. It tells whether it did
anything at all.
"""

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import psycopg

from dev.pytest_services import Service
from tests.chaos.database import APPLICATION
from tests.chaos.world import World

Inject: TypeAlias = Callable[[World, str, float], bool]
Members: TypeAlias = Mapping[str, str]

# Kafka gives a consumer's partitions to others after 6 s.
LONGER_THAN_A_SESSION_S = (6.5, 9.0)
AT_ONCE_S = (0.0, 0.0)
SOON_S = (0.0, 2.0)
ALL_WAIT_WITHIN_S = 5.0
PAUSE_S = 0.02

_END_BACKENDS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name <> %s
"""
# Not from pg_stat_activity, which stays as it was throughout a transaction.
_WAITING = """
    SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND starts_with(relname, 'symbol_averages')
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `strikes` gives whom it may strike, among these members."""

    name: str
    strikes: Callable[[Members], list[str]]
    hold_s: tuple[float, float]
    inject: Inject
    weight: int = 1


def any_process(members: Members) -> list[str]:
    """Give every process."""
    return list(members)


def any_consumer(members: Members) -> list[str]:
    """Give the consumers."""
    return [name for name, process in members.items() if process == "consumer"]


def only(target: str) -> Callable[[Members], list[str]]:
    """Give a part that is struck whatever the members are."""
    return lambda _: [target]


def kill_process(world: World, name: str, hold_s: float) -> bool:
    """SIGKILL, and a while later a start."""
    world.fleet.kill(name)
    time.sleep(hold_s)
    world.fleet.start(name)
    return True


def restart_process(world: World, name: str, hold_s: float) -> bool:
    """SIGTERM, the end that follows, and a while later a start."""
    world.fleet.stop(name)
    time.sleep(hold_s)
    world.fleet.start(name)
    return True


def suspend_process(world: World, name: str, hold_s: float) -> bool:
    """SIGSTOP, and SIGCONT when others have taken over its work."""
    world.fleet.signal(name, signal.SIGSTOP)
    time.sleep(hold_s)
    world.fleet.signal(name, signal.SIGCONT)
    return True


def kill_while_writing(world: World, name: str, hold_s: float) -> bool:
    """SIGKILL a consumer whose statement waits for a lock: after it read, before it committed."""
    if not _while_it_writes(world, name, partial(world.fleet.kill, name)):
        return False
    time.sleep(hold_s)
    world.fleet.start(name)
    return True


def suspend_while_writing(world: World, name: str, hold_s: float) -> bool:
    """SIGSTOP a consumer in its transaction, and SIGCONT when its partitions are another's."""
    if not _while_it_writes(world, name, partial(world.fleet.signal, name, signal.SIGSTOP)):
        return False
    time.sleep(hold_s)
    world.fleet.signal(name, signal.SIGCONT)
    return True


def _while_it_writes(world: World, name: str, strike: Callable[[], None]) -> bool:
    struck = False
    at_hand = set(any_consumer(world.setting.members)) - world.busy | {name}
    # PostgreSQL may be away, or go away meanwhile.
    with world.new_database() as database, suppress(psycopg.OperationalError):
        locking = database.connection()
        with locking.transaction():
            locking.execute("SET LOCAL lock_timeout = '3s'")
            locking.execute("LOCK TABLE symbol_averages IN EXCLUSIVE MODE")
            # Which backend is whose process PostgreSQL does not tell, so all are let run into the lock.
            if _wait_for_writers(locking, len(at_hand)):
                strike()
                struck = True
    return struck


def _wait_for_writers(locking: psycopg.Connection, wanted: int) -> int:
    deadline = time.monotonic() + ALL_WAIT_WITHIN_S
    while True:
        (waiting,) = locking.execute(_WAITING).fetchone() or (0,)
        if waiting >= wanted or time.monotonic() > deadline:
            return int(waiting)
        time.sleep(PAUSE_S)


def end_backends(world: World, _target: str, _hold_s: float) -> bool:
    """End every connection to the database but the harness's own."""
    with world.new_database() as database:
        return bool(database.rows(_END_BACKENDS, [APPLICATION]))


def stop_part(choose: Callable[[World], Service], world: World, _target: str, hold_s: float) -> bool:
    """Stop a part as an operator would, and a while later start it."""
    part = choose(world)
    part.stop()
    time.sleep(hold_s)
    part.start()
    return True


def _postgres(world: World) -> Service:
    return world.services.postgres


def _kafka(world: World) -> Service:
    return world.services.kafka


def _valkey(world: World) -> Service:
    return world.services.valkey


def burst(kind: str, world: World, _target: str, _hold_s: float) -> bool:
    """Let the traffic send many of one kind at once."""
    world.traffic.burst(kind)
    return True


FAULTS = [
    Fault("process killed", any_process, SOON_S, kill_process, weight=4),
    Fault("process suspended", any_process, LONGER_THAN_A_SESSION_S, suspend_process, weight=3),
    Fault("process restarted", any_process, SOON_S, restart_process, weight=2),
    Fault("consumer killed while it writes", any_consumer, SOON_S, kill_while_writing, weight=2),
    Fault("consumer suspended while it writes", any_consumer, LONGER_THAN_A_SESSION_S, suspend_while_writing),
    Fault("backends ended", only("backends"), AT_ONCE_S, end_backends, weight=2),
    Fault("PostgreSQL restarted", only("PostgreSQL"), SOON_S, partial(stop_part, _postgres)),
    Fault("Kafka restarted", only("Kafka"), (0.5, 4.0), partial(stop_part, _kafka)),
    Fault("Valkey restarted", only("Valkey"), SOON_S, partial(stop_part, _valkey)),
    Fault("burst of duplicates", only("traffic"), AT_ONCE_S, partial(burst, "duplicates")),
    Fault("burst of late events", only("traffic"), AT_ONCE_S, partial(burst, "late")),
    Fault("burst of poison", only("traffic"), AT_ONCE_S, partial(burst, "poison")),
]
BY_NAME = {fault.name: fault for fault in FAULTS}
