"""A real Redis that answers with errors, and the error that each trouble leads to."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.waiting import wait_until

USER, PASSWORD = "service", "only-for-tests"
EVERYTHING = ("~*", "&*", "+@all")

Trouble: TypeAlias = Callable[[redis.Redis], AbstractContextManager[None]]


def admin_of(url: str) -> redis.Redis:
    """Return a client whose commands are sent once."""
    return redis.Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0))


def tell(admin: redis.Redis, *command: str) -> None:
    """Send a command for which the client has no method."""
    admin.execute_command(*command)  # type: ignore[no-untyped-call]


@contextmanager
def own_user(admin: redis.Redis) -> Iterator[str]:
    """Yield what stands in a URL for a user who may do everything, until something is taken from it."""
    tell(admin, "ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *EVERYTHING)
    try:
        yield f"{USER}:{PASSWORD}@"
    finally:
        tell(admin, "ACL", "DELUSER", USER)


def refusing(*commands: str, user: str = USER) -> Trouble:
    """Return the trouble that Redis refuses commands to a user: NOPERM."""

    @contextmanager
    def trouble(admin: redis.Redis) -> Iterator[None]:
        tell(admin, "ACL", "SETUSER", user, *(f"-{name}" for name in commands))
        try:
            yield
        finally:
            tell(admin, "ACL", "SETUSER", user, *(f"+{name}" for name in commands))

    return trouble


def reconnecting(*commands: str) -> Trouble:
    """Return the same, with all connections ended: for commands that each new one begins with."""

    @contextmanager
    def trouble(admin: redis.Redis) -> Iterator[None]:
        with refusing(*commands)(admin):
            tell(admin, "CLIENT", "KILL", "USER", USER)
            yield

    return trouble


def wrong_type(key: str) -> Trouble:
    """Return the trouble that a queue is no list: WRONGTYPE."""

    @contextmanager
    def trouble(admin: redis.Redis) -> Iterator[None]:
        admin.set(key, "no list")
        try:
            yield
        finally:
            admin.delete(key)

    return trouble


@contextmanager
def locked_out(admin: redis.Redis) -> Iterator[None]:
    """Refuse the user: WRONGPASS."""
    tell(admin, "ACL", "SETUSER", USER, "off")
    tell(admin, "CLIENT", "KILL", "USER", USER)
    try:
        yield
    finally:
        tell(admin, "ACL", "SETUSER", USER, "on")


@contextmanager
def deleted_user(admin: redis.Redis) -> Iterator[None]:
    """Have no such user any more, which ends its connections, and then one of another password: WRONGPASS."""
    # Not by this client: it may be of that user.
    server = {name: admin.get_connection_kwargs()[name] for name in ("host", "port")}
    with redis.Redis(**server) as other:
        tell(other, "ACL", "DELUSER", USER)
        tell(other, "ACL", "SETUSER", USER, "reset", "on", ">another", *EVERYTHING)
        try:
            yield
        finally:
            tell(other, "ACL", "SETUSER", USER, "resetpass", f">{PASSWORD}")


@contextmanager
def replica(admin: redis.Redis) -> Iterator[None]:
    """Follow a server that is not there: UNBLOCKED for those who wait, then READONLY."""
    tell(admin, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        tell(admin, "REPLICAOF", "NO", "ONE")


@contextmanager
def stale_replica(admin: redis.Redis) -> Iterator[None]:
    """The same, and serve no stale data: MASTERDOWN for reads and PING."""
    with configured(admin, "replica-serve-stale-data", "no"), replica(admin):
        yield


@contextmanager
def failed_snapshot(admin: redis.Redis) -> Iterator[None]:
    """Be unable to write a snapshot: MISCONF, also for PING."""
    taken = Path(setting_of(admin, "dir")) / "dump.rdb"
    taken.unlink(missing_ok=True)
    taken.mkdir()
    with configured(admin, "save", "3600 1"):
        admin.bgsave()
        wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", what="no snapshot")
        try:
            yield
        finally:
            taken.rmdir()


@contextmanager
def full(admin: redis.Redis) -> Iterator[None]:
    """Have no memory left: OOM."""
    with configured(admin, "maxmemory", "1"):
        yield


@contextmanager
def too_few_replicas(admin: redis.Redis) -> Iterator[None]:
    """Lack the replicas without which it takes no writes: NOREPLICAS."""
    with configured(admin, "min-replicas-to-write", "1"):
        yield


@contextmanager
def configured(admin: redis.Redis, name: str, value: str) -> Iterator[None]:
    """Have a setting, and then what it was before."""
    before = setting_of(admin, name)
    admin.config_set(name, value)
    try:
        yield
    finally:
        admin.config_set(name, before)


def setting_of(admin: redis.Redis, name: str) -> str:
    """Return a setting of the server."""
    return str(admin.config_get(name)[name])
