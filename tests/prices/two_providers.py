"""Finnhub and Alpha Vantage as local servers that answer, fail or hang as a test says."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from prices.database.uuid7 import new_ids
from prices.fetching.last_points import add_points
from prices.latest.single_flight import forget_single_flight
from prices.models import PricePoint

KEYS = {"finnhub": "canary-key-123456", "alpha_vantage": "canary-key-654321"}
PATHS = {"finnhub": "/api/v1/quote", "alpha_vantage": "/query"}


class TwoProviders:
    """Two servers; `release` ends what hangs, and `ended` is set at the end of the test."""

    def __init__(self, servers: dict[str, HTTPServer]) -> None:
        self.release = threading.Event()
        self.ended = threading.Event()
        self._servers = servers
        self._begun = Counter[str]()

    def answer(self, name: str, body: str, *, status: int = 200) -> None:
        """Let a provider answer so from now on."""
        self.handle(name, lambda _request: Response(body, status=status))

    def handle(self, name: str, handler: Callable[[Request], Response]) -> None:
        """Let a function answer for a provider from now on."""

        def counted(request: Request) -> Response:
            self._begun[name] += 1
            return handler(request)

        self._servers[name].clear_all_handlers()
        self._servers[name].expect_request(PATHS[name]).respond_with_handler(counted)

    def hang(self, name: str, *, then: str = "", status: int = 200) -> None:
        """Let a provider answer once `release` is set."""

        def answer_late(_request: Request) -> Response:
            self.release.wait(30)
            return Response(then, status=status)

        self.handle(name, answer_late)

    def requests(self, name: str) -> int:
        """Return how often a provider was asked."""
        return self._begun[name]


@contextmanager
def two_servers() -> Iterator[dict[str, HTTPServer]]:
    """Yield a server for each of the two."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(HTTPServer("127.0.0.1", 0, threaded=True)) for name in KEYS}


@contextmanager
def two_providers(servers: dict[str, HTTPServer], settings: Settings) -> Iterator[TwoProviders]:
    """Point the settings at the servers, Finnhub before Alpha Vantage, with budgets that do not matter."""
    settings.PROVIDER_ORDER = list(KEYS)
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | dict.fromkeys(KEYS, "1000/1m")
    for name, server in servers.items():
        server.clear()
        setattr(settings, f"{name.upper()}_API_KEY", KEYS[name])
        setattr(settings, f"{name.upper()}_BASE_URL", server.url_for("").rstrip("/"))
    forget_single_flight()
    found = TwoProviders(servers)
    try:
        yield found
    finally:
        found.release.set()
        found.ended.set()
        forget_single_flight()


def finnhub_quote(price: str = "150.25", *, observed_s_ago: int = 0) -> str:
    """Return Finnhub's answer."""
    seconds = int(datetime.now(UTC).timestamp()) - observed_s_ago
    return f'{{"c":{price},"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":{seconds}}}'


def alpha_vantage_quote(price: str = "99.5", *, day: str = "2026-11-20") -> str:
    """Return Alpha Vantage's answer for AAPL: a price of a day."""
    row = {"01. symbol": "AAPL", "05. price": price, "07. latest trading day": day}
    return json.dumps({"Global Quote": row})


def running_day() -> str:
    """Return a date that has begun somewhere, and on which New York has not closed yet."""
    return f"{datetime.now(UTC) + timedelta(hours=14):%Y-%m-%d}"


def add_point(
    provider: str, *, price: str = "1", observed_s_ago: int | None, received_s_ago: int, symbol: str = "AAPL"
) -> PricePoint:
    """Store a point that was observed and received so many seconds ago, as who stores one does."""
    now = datetime.now(UTC)
    point_id, raw_id = new_ids(2)
    point = PricePoint.objects.create(
        id=point_id,
        symbol=symbol,
        provider=provider,
        price=Decimal(price),
        observed_at=None if observed_s_ago is None else now - timedelta(seconds=observed_s_ago),
        precision="unknown" if observed_s_ago is None else "second",
        received_at=now - timedelta(seconds=received_s_ago),
        raw=raw_id,
    )
    add_points([point])
    return point
