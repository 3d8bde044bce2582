import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from prices.database.uuid7 import first_id_at, new_ids
from prices.latest.errors import Failure, NoPriceError, RequestRefusedError
from prices.latest.single_flight import SingleFlight, forget_single_flight, single_flight
from prices.models import PricePoint, RawMarketData
from providers.base import NotConfiguredError, ProviderError
from providers.rate_limits.symbol_leases import Lease
from tests.prices.one_price import fetch_price, join, latest_price
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def finnhub(settings: Settings, httpserver: HTTPServer, topic: str) -> Iterator[HTTPServer]:
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.FINNHUB_API_KEY = "canary-key-123456"
    forget_single_flight()
    yield httpserver
    forget_single_flight()


def quote(price: str = "150.25") -> str:
    seconds = int(datetime.now(UTC).timestamp())
    return f'{{"c":{price},"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":{seconds}}}'


def add_point(provider: str, *, price: str, observed_s_ago: int, received_s_ago: int) -> None:
    now = datetime.now(UTC)
    point_id, raw_id = new_ids(2)
    PricePoint.objects.create(
        id=point_id,
        symbol="AAPL",
        provider=provider,
        price=Decimal(price),
        observed_at=now - timedelta(seconds=observed_s_ago),
        precision="second",
        received_at=now - timedelta(seconds=received_s_ago),
        raw=raw_id,
    )


def ask(provider: str | None = "finnhub") -> PricePoint:
    return latest_price("AAPL", provider, now=datetime.now(UTC)).point


def test_latest_cold_is_fetched_stored_and_published(finnhub: HTTPServer) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    assert ask().price == Decimal("150.25")
    wait_until(lambda: PricePoint.objects.filter(published_at__isnull=False).count() == 1)
    assert RawMarketData.objects.get().poll is None


def test_latest_received_just_now_is_reused(finnhub: HTTPServer) -> None:
    add_point("finnhub", price="1", observed_s_ago=20, received_s_ago=10)
    assert ask().price == 1
    assert finnhub.log == []


def test_latest_received_long_ago_is_fetched_again(finnhub: HTTPServer) -> None:
    add_point("finnhub", price="1", observed_s_ago=20, received_s_ago=16)
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote("2"))
    assert ask().price == 2


def test_latest_without_provider_is_the_newest_by_the_providers_time(finnhub: HTTPServer) -> None:
    add_point("yfinance", price="1", observed_s_ago=5, received_s_ago=10)
    add_point("finnhub", price="2", observed_s_ago=900, received_s_ago=1)
    assert ask(None).price == 1
    assert ask("finnhub").price == 2


def test_latest_without_provider_prefers_a_stored_price_of_a_later_moment(
    finnhub: HTTPServer, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub"]
    add_point("yfinance", price="1", observed_s_ago=16, received_s_ago=16)
    old = quote("55.5").replace(str(int(datetime.now(UTC).timestamp())), "1795000000")
    finnhub.expect_request("/api/v1/quote").respond_with_data(old)
    assert ask(None).price == 1
    assert ask("finnhub").price == Decimal("55.5")


def test_latest_of_many_who_wait_is_one_request(finnhub: HTTPServer, settings: Settings) -> None:
    settings.LATEST_MAX_FETCHES = 20
    forget_single_flight()
    release = threading.Event()

    def answer_late(_request: Request) -> Response:
        release.wait(5)
        return Response(quote())

    finnhub.expect_request("/api/v1/quote").respond_with_handler(answer_late)
    prices: list[Decimal] = []

    def call() -> None:
        try:
            prices.append(ask().price)
        finally:
            connection.close()

    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    wait_until(lambda: single_flight().under_way == 1)
    release.set()
    for caller in callers:
        caller.join()
    assert prices == [Decimal("150.25")] * 20
    assert len(finnhub.log) == 1


def test_latest_that_joins_takes_no_price_that_was_reused_for_longer_than_it_allows(
    finnhub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_joined = threading.Event()
    join_all = SingleFlight.join

    def join_noted(shared: SingleFlight, *flights: Any) -> Mapping[str, Future[PricePoint]]:
        joined = join_all(shared, *flights)
        has_joined.set()
        return joined

    def reuse(provider: str, _symbol: str) -> PricePoint:
        assert has_joined.wait(10)
        return PricePoint.objects.get(provider=provider)

    ten_s_ago = datetime.now(UTC) - timedelta(seconds=10)
    add_point("finnhub", price="1", observed_s_ago=10, received_s_ago=10)
    PricePoint.objects.update(id=first_id_at(ten_s_ago))
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote("2"))
    join(single_flight(), "finnhub", "AAPL", reuse)
    monkeypatch.setattr(SingleFlight, "join", join_noted)
    found = latest_price("AAPL", "finnhub", now=datetime.now(UTC), max_age_s=5)
    assert (found.point.price, found.failures) == (2, [])
    assert len(finnhub.log) == 1


def test_latest_that_waits_for_another_process_is_told_for_how_long_the_rate_is_limited(
    finnhub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_waits = threading.Event()
    wait_for_others = Lease.wait_for_others

    def refuse_late(_request: Request) -> Response:
        another_waits.wait(5)
        return Response('{"error":"API limit reached."}', status=429, headers={"Retry-After": "17"})

    def wait_noted(lease: Lease, symbols: Sequence[str], *, deadline: float) -> bool:
        another_waits.set()
        return wait_for_others(lease, symbols, deadline=deadline)

    def wait_s() -> float:
        # Past the single flight, which is a process's own.
        try:
            fetch_price("finnhub", "AAPL")
        except (ProviderError, RequestRefusedError) as error:
            return Failure("finnhub", error).retry_after_s
        finally:
            connection.close()
        return 0.0

    finnhub.expect_request("/api/v1/quote").respond_with_handler(refuse_late)
    monkeypatch.setattr(Lease, "wait_for_others", wait_noted)
    with ThreadPoolExecutor() as pool:
        callers = [pool.submit(wait_s) for _ in range(2)]
        assert [caller.result() for caller in callers] == [pytest.approx(17, abs=5)] * 2
    assert len(finnhub.log) == 1


def test_latest_too_slow_times_out_but_its_answer_is_stored(finnhub: HTTPServer, settings: Settings) -> None:
    settings.LATEST_DEADLINE_S = 0.2
    release = threading.Event()

    def answer_late(_request: Request) -> Response:
        release.wait(5)
        return Response(quote())

    finnhub.expect_request("/api/v1/quote").respond_with_handler(answer_late)
    with pytest.raises(NoPriceError, match="finnhub: timeout"):
        ask()
    release.set()
    wait_until(lambda: PricePoint.objects.filter(published_at__isnull=False).count() == 1)


def test_latest_of_provider_without_key_names_the_variable(settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    with pytest.raises(NotConfiguredError, match="FINNHUB_API_KEY"):
        ask()


def test_latest_of_failing_provider_keeps_its_answer(finnhub: HTTPServer) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    with pytest.raises(NoPriceError, match="finnhub: upstream_error"):
        ask()
    assert {raw.status for raw in RawMarketData.objects.all()} == {503}


def test_latest_whose_turn_does_not_come_in_time_is_refused(finnhub: HTTPServer, settings: Settings) -> None:
    settings.LATEST_DEADLINE_S = 0.2
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/900ms"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    fetch_price("finnhub", "AAPL")
    with pytest.raises(RequestRefusedError):
        fetch_price("finnhub", "MSFT")
    assert len(finnhub.log) == 1


def test_latest_of_price_that_the_database_refuses_is_malformed(finnhub: HTTPServer) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE price_points ADD CONSTRAINT for_this_test CHECK (symbol <> 'AAPL')")
        try:
            with pytest.raises(ProviderError, match="cannot hold"):
                fetch_price("finnhub", "AAPL")
        finally:
            cursor.execute("ALTER TABLE price_points DROP CONSTRAINT for_this_test")
    assert RawMarketData.objects.count() == 1
