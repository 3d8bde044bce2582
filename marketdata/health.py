"""Health: is this process alive, and can it serve; each part by name."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import redis
from confluent_kafka import KafkaError, KafkaException
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, connection, connections
from django.db.migrations.executor import MigrationExecutor
from redis.backoff import NoBackoff
from redis.retry import Retry

from prices.clock import DIFFERS_BEYOND, database_now, differing_clocks
from prices.database.errors import DatabaseTrouble, database_trouble
from prices.maintenance.partitions import missing_partitions
from prices.maintenance.stopped_processes import stopped_processes
from prices.publishing.kafka_clients import Admin, LastingClient, make_admin
from prices.stream.stalls import describe_stall
from providers.rate_limits.redis_errors import redis_problem
from providers.redis_probe import probe_redis

PART_TIMEOUT_S = 2.0
# Stored prices can be read without the others: they only make the service degraded.
REQUIRED = ("postgresql", "migrations")


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part: `problem` is None where it is well."""

    name: str
    problem: str | None


class PartError(Exception):
    """A part is not well; the text says how."""


def check_parts() -> list[PartHealth]:
    """Look at every part at once; all of them together are waited for up to 2 s."""
    deadline = time.monotonic() + PART_TIMEOUT_S
    checks = {name: _checks().join(name) for name in PARTS}
    found = []
    for name, check in checks.items():
        try:
            check.result(timeout=max(deadline - time.monotonic(), 0))
            found.append(PartHealth(name, None))
        except FutureTimeoutError:
            found.append(PartHealth(name, f"no answer within {PART_TIMEOUT_S:g} s"))
        except PartError as error:
            found.append(PartHealth(name, str(error)))
    return found


def is_ready(parts: list[PartHealth]) -> bool:
    """Return whether the service can serve: the parts that it cannot do without are well."""
    return not any(part.problem for part in parts if part.name in REQUIRED)


def _check_postgresql() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error as error:
        raise PartError(str(database_trouble(error) or DatabaseTrouble.UNREACHABLE)) from error
    finally:
        connection.close()


def _check_migrations() -> None:
    try:
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Error as error:
        raise PartError("cannot be read") from error
    finally:
        connection.close()
    if plan:
        raise PartError(f"{len(plan)} not applied: run manage.py prepare")


def _check_partitions() -> None:
    try:
        missing = missing_partitions(database_now().date())
    except Error as error:
        raise PartError("cannot be read") from error
    finally:
        connection.close()
    if missing:
        raise PartError(
            f"no {', '.join(missing)} yet: is `maintenance` running? Its log names what keeps it from"
            " making them"
        )


def _check_redis() -> None:
    try:
        probe_redis(_redis(), queues=[queue.name for queue in settings.CELERY_TASK_QUEUES])
    except redis.RedisError as error:
        raise PartError(redis_problem(error)) from error


def _check_kafka() -> None:
    try:
        kafka = _kafka().get()
    except KafkaException as error:
        raise PartError(f"its settings cannot be used: {error.args[0].str()}") from error
    asked_at = time.monotonic()
    try:
        topics = kafka.list_topics(settings.KAFKA_TOPIC, timeout=PART_TIMEOUT_S).topics
    except KafkaException as error:
        _kafka().note(kafka, asked_at=asked_at, is_answered=False)
        refusal = kafka.refusal()
        raise PartError(f"refuses this service: {refusal}" if refusal else "cannot be reached") from error
    _kafka().note(kafka, asked_at=asked_at, is_answered=True)
    # What it refused before it took this client is no reason of a later failure.
    kafka.refusal()
    problem = topics[settings.KAFKA_TOPIC].error
    if problem is not None and problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise PartError(f"there is no topic {settings.KAFKA_TOPIC}: run manage.py ensure_topic")
    if problem is not None:
        raise PartError(f"answers for topic {settings.KAFKA_TOPIC}: {problem.str()}")


def _check_stream() -> None:
    try:
        stall = describe_stall()
    except Error as error:
        raise PartError("cannot be read") from error
    finally:
        connection.close()
    if stall:
        raise PartError(stall)


def _check_processes() -> None:
    if stopped := stopped_processes():
        raise PartError("; ".join(stopped.values()))


def _check_clocks() -> None:
    try:
        differing = {clock.process: clock.ahead_s for clock in differing_clocks()}
        before, (seconds, microseconds), after = database_now(), _redis().time(), database_now()
    except (Error, redis.RedisError):
        # That part says so.
        return
    finally:
        connection.close()
    redis_now = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
    if not before - DIFFERS_BEYOND <= redis_now <= after + DIFFERS_BEYOND:
        differing["Redis"] = (redis_now - before).total_seconds()
    if differing:
        listed = ", ".join(f"{name} by {ahead_s:+.1f} s" for name, ahead_s in differing.items())
        raise PartError(f"differ from PostgreSQL's: {listed}")


PARTS: dict[str, Callable[[], None]] = {
    "postgresql": _check_postgresql,
    "migrations": _check_migrations,
    "partitions": _check_partitions,
    "redis": _check_redis,
    "kafka": _check_kafka,
    "stream": _check_stream,
    "processes": _check_processes,
    "clocks": _check_clocks,
}


class _SharedChecks:
    """One check of a part at a time, for all who ask: a part that hangs holds one thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(len(PARTS), thread_name_prefix="health")
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[None]] = {}

    def join(self, name: str) -> Future[None]:
        with self._lock:
            if name not in self._under_way or self._under_way[name].done():
                self._under_way[name] = self._pool.submit(copy_context().run, PARTS[name])
            return self._under_way[name]


@cache
def _checks() -> _SharedChecks:
    return _SharedChecks()


def forget_clients() -> None:
    """Drop the clients: the next check makes them for the settings as they are then."""
    _redis.cache_clear()
    _kafka.cache_clear()


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=PART_TIMEOUT_S,
        socket_connect_timeout=PART_TIMEOUT_S,
        # Its own retries pause for longer than anyone waits here.
        retry=Retry(NoBackoff(), 0),
    )


@cache
def _kafka() -> LastingClient[Admin]:
    return LastingClient(make_admin)
