"""What can be done to the service. A fault says whom it may strike, how long it holds, and how it is done.

`inject` ends with the fault undone: the process runs again, the part is back. It tells whether it did
anything at all.
"""

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import psycopg

from consumers.repair.rebuild import RebuildError, rebuild_averages
from dev.pytest_services import Service
from tests.chaos.clocks import Clocks
from tests.chaos.database import APPLICATION
from tests.chaos.world import SHARED_SYMBOLS, World
from tests.redis_troubles import Trouble, admin_of, full, refusing, replica

Members: TypeAlias = Mapping[str, str]

# Kafka gives a consumer's partitions to others after 6 s.
LONGER_THAN_A_SESSION_S = (6.5, 9.0)
AT_ONCE_S = (0.0, 0.0)
SOON_S = (0.0, 2.0)
# Kafka refuses what is dated more than an hour ahead.
ALMOST_AN_HOUR_S = (3_300.0, 3_300.0)
ALL_WAIT_WITHIN_S = 5.0
PAUSE_S = 0.02
REBUILT_WITHIN_S = 60.0
RETRIED_AFTER_S = 0.5
CLOCK_AHEAD = "clock of PostgreSQL and all processes ahead"
_CLOCK = "'s clock"

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
_MAKE_WRONG = """
    UPDATE symbol_averages SET average = average + 1 WHERE symbol = %s AND average IS NOT NULL RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A fault that strikes its target `at_s` seconds after the beginning and holds for `hold_s`.

    `by_s`: so far a clock is set ahead, or back by a negative number.
    """

    at_s: float
    fault: str
    target: str
    hold_s: float
    by_s: float = 0.0


Inject: TypeAlias = Callable[[World, Step], bool]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `strikes` gives whom it may strike, among these members.

    `clock_s`: the least and the most by which it sets a clock, in both directions with `sets_back`.
    """

    name: str
    strikes: Callable[[Members], list[str]]
    hold_s: tuple[float, float]
    inject: Inject
    weight: int = 1
    clock_s: tuple[float, float] | None = None
    sets_back: bool = False


def any_process(members: Members) -> list[str]:
    """Return every process."""
    return list(members)


def any_consumer(members: Members) -> list[str]:
    """Return the consumers."""
    return [name for name, process in members.items() if process == "consumer"]


def only(target: str) -> Callable[[Members], list[str]]:
    """Return a part that is struck whatever the members are."""
    return lambda _: [target]


def kill_process(world: World, step: Step) -> bool:
    """SIGKILL, and a while later a start."""
    world.fleet.kill(step.target)
    time.sleep(step.hold_s)
    world.fleet.start(step.target)
    return True


def restart_process(world: World, step: Step) -> bool:
    """SIGTERM, the end that follows, and a while later a start."""
    world.fleet.stop(step.target)
    time.sleep(step.hold_s)
    world.fleet.start(step.target)
    return True


def suspend_process(world: World, step: Step) -> bool:
    """SIGSTOP, and SIGCONT when others have taken over its work."""
    world.fleet.signal(step.target, signal.SIGSTOP)
    time.sleep(step.hold_s)
    world.fleet.signal(step.target, signal.SIGCONT)
    return True


def kill_while_writing(world: World, step: Step) -> bool:
    """SIGKILL a consumer whose statement waits for a lock: after it read, before it committed."""
    if not _while_it_writes(world, step.target, partial(world.fleet.kill, step.target)):
        return False
    time.sleep(step.hold_s)
    world.fleet.start(step.target)
    return True


def suspend_while_writing(world: World, step: Step) -> bool:
    """SIGSTOP a consumer in its transaction, and SIGCONT when its partitions are another's."""
    if not _while_it_writes(world, step.target, partial(world.fleet.signal, step.target, signal.SIGSTOP)):
        return False
    time.sleep(step.hold_s)
    world.fleet.signal(step.target, signal.SIGCONT)
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


def end_backends(world: World, _step: Step) -> bool:
    """End every connection to the database but the harness's own."""
    with world.new_database() as database:
        return bool(database.rows(_END_BACKENDS, [APPLICATION]))


def stop_part(choose: Callable[[World], Service], world: World, step: Step) -> bool:
    """Stop a part as an operator would, and a while later start it."""
    part = choose(world)
    part.stop()
    time.sleep(step.hold_s)
    part.start()
    return True


def _postgres(world: World) -> Service:
    return world.services.postgres


def _kafka(world: World) -> Service:
    return world.services.kafka


def _valkey(world: World) -> Service:
    return world.services.valkey


def have_valkey_refuse(trouble: Trouble, world: World, step: Step) -> bool:
    """Let Valkey answer with errors for a while."""
    with admin_of(world.services.valkey.address) as admin, trouble(admin):
        time.sleep(step.hold_s)
    return True


def burst(kind: str, world: World, _step: Step) -> bool:
    """Let the traffic send many of one kind at once."""
    world.traffic.burst(kind)
    return True


def have_averages_rebuilt(world: World, _step: Step) -> bool:
    """Make the averages of a symbol wrong, and have them rebuilt while all goes on."""
    symbol = world.rng.choice(SHARED_SYMBOLS)
    # PostgreSQL may be away, or go away meanwhile.
    with world.new_database() as database, suppress(psycopg.OperationalError):
        database.rows(_MAKE_WRONG, [symbol])
    deadline = time.monotonic() + REBUILT_WITHIN_S
    while True:
        try:
            if rebuild_averages(symbol=symbol).is_complete:
                return True
        except RebuildError:
            if time.monotonic() > deadline:
                raise
        time.sleep(RETRIED_AFTER_S)


def any_clock(members: Members) -> list[str]:
    """Return the clock of every process."""
    return [f"{name}{_CLOCK}" for name in members]


def have_clock_wrong(world: World, step: Step) -> bool:
    """Set the clock of one process ahead or back, and right again a while later."""
    with _clocks(world).wrong(step.target.removesuffix(_CLOCK), timedelta(seconds=step.by_s)):
        time.sleep(step.hold_s)
    return True


def step_clock(world: World, step: Step) -> bool:
    """Set the clock of PostgreSQL and of all processes, as NTP does with one that was wrong."""
    _clocks(world).step(timedelta(seconds=step.by_s))
    return True


def have_clock_ahead(world: World, step: Step) -> bool:
    """Set the clock of PostgreSQL and of all processes ahead, and back again a while later."""
    with _clocks(world).ahead(timedelta(seconds=step.by_s)):
        time.sleep(step.hold_s)
    return True


def _clocks(world: World) -> Clocks:
    assert world.clocks is not None, "these clocks cannot be set"
    return world.clocks


_NO_LPUSH, _NO_BRPOP = (refusing(command, user="default") for command in ("lpush", "brpop"))

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
    Fault("Valkey read-only", only("Valkey"), (0.5, 4.0), partial(have_valkey_refuse, replica)),
    Fault("Valkey full", only("Valkey"), (0.5, 4.0), partial(have_valkey_refuse, full)),
    Fault("Valkey takes no messages", only("Valkey"), (0.5, 4.0), partial(have_valkey_refuse, _NO_LPUSH)),
    Fault("Valkey gives no messages", only("Valkey"), (0.5, 4.0), partial(have_valkey_refuse, _NO_BRPOP)),
    Fault("averages made wrong and rebuilt", only("averages"), AT_ONCE_S, have_averages_rebuilt, weight=2),
    Fault("burst of duplicates", only("traffic"), AT_ONCE_S, partial(burst, "duplicates")),
    Fault("burst of late events", only("traffic"), AT_ONCE_S, partial(burst, "late")),
    Fault("burst of poison", only("traffic"), AT_ONCE_S, partial(burst, "poison")),
]
CLOCK_FAULTS = [
    Fault(
        "clock of a process wrong",
        any_clock,
        (2.0, 6.0),
        have_clock_wrong,
        weight=4,
        clock_s=(2.0, 7_200.0),
        sets_back=True,
    ),
    Fault(
        "clock of PostgreSQL and all processes set",
        only(f"PostgreSQL{_CLOCK}"),
        AT_ONCE_S,
        step_clock,
        weight=2,
        clock_s=(0.5, 5.0),
        sets_back=True,
    ),
    Fault(
        CLOCK_AHEAD,
        only(f"PostgreSQL{_CLOCK}"),
        (2.0, 5.0),
        have_clock_ahead,
        clock_s=ALMOST_AN_HOUR_S,
    ),
]
BY_NAME = {fault.name: fault for fault in [*FAULTS, *CLOCK_FAULTS]}
