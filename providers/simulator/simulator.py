"""The simulator as a whole, to start in a process of its own or inside another one."""

from types import TracebackType
from typing import Self

from providers.simulator.control import FAULTS, REQUESTS
from providers.simulator.engine import Engine
from providers.simulator.faults import Faults
from providers.simulator.log import Received
from providers.simulator.server import Server


class Simulator:
    """Finnhub, Alpha Vantage and Yahoo on one port; a context manager that serves while it is open.

    Any key is taken, none is needed but a blank one is refused. Every symbol has a price that wanders,
    unless it begins with UNKNOWN. Port 0 is a free one. Raises OSError where the address cannot be had,
    and FaultsError for faults that cannot be set.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **faults: object) -> None:
        self._engine = Engine()
        self._engine.change(faults)
        self._server = Server(host, port, self._engine)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        """Where it is: what FINNHUB_BASE_URL, ALPHA_VANTAGE_BASE_URL and YAHOO_BASE_URL are to be set to."""
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def faults_url(self) -> str:
        """Where its faults are told and changed."""
        return self.url + FAULTS

    @property
    def requests_url(self) -> str:
        """Where it tells which requests came."""
        return self.url + REQUESTS

    @property
    def faults(self) -> dict[str, Faults]:
        """Each provider's faults."""
        return self._engine.faults()

    def change(self, *, provider: str | None = None, **faults: object) -> None:
        """Change faults of one provider, or of all; raises FaultsError, and then none is changed."""
        self._engine.change(faults, provider=provider)

    def requests(self, provider: str | None = None) -> list[Received]:
        """Return the requests that came, oldest first, for one provider or all."""
        newest, _ = self._engine.requests()
        return [received for received in newest if provider in {None, received.provider}]

    def forget_requests(self) -> None:
        """Empty the log of requests."""
        self._engine.forget_requests()
