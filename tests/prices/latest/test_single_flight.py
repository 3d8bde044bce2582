"""Fetches and the places of those who wait for them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_django import Settings
from structlog.contextvars import bound_contextvars, get_contextvars
from structlog.testing import capture_logs

from prices.latest.errors import TooManyFetchesError
from prices.latest.single_flight import SingleFlight, forget_single_flight, single_flight
from prices.models import PricePoint
from providers.base import unknown_symbol
from tests.prices.one_price import join
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Yield what the fetches of a test wait for; it opens at the test's end."""
    event = threading.Event()
    yield event
    event.set()


def waiting_for(gate: threading.Event) -> Callable[[str, str], PricePoint]:
    def fetch(provider: str, symbol: str) -> PricePoint:
        assert gate.wait(10)
        return PricePoint(provider=provider, symbol=symbol)

    return fetch


def test_flight_of_the_same_symbol_and_provider_is_joined(gate: threading.Event) -> None:
    made, fetch = SingleFlight(2), waiting_for(gate)
    first = join(made, "finnhub", "AAPL", fetch)
    assert join(made, "finnhub", "AAPL", fetch) is first
    assert join(made, "yfinance", "AAPL", fetch) is not first
    assert join(made, "finnhub", "MSFT", fetch) is not first
    gate.set()
    assert (first.result(5).provider, first.result(5).symbol) == ("finnhub", "AAPL")
    made.close()


def test_flight_that_has_ended_is_not_joined(gate: threading.Event) -> None:
    gate.set()
    made, fetch = SingleFlight(1), waiting_for(gate)
    first = join(made, "finnhub", "AAPL", fetch)
    first.result(5)
    wait_until(lambda: made.under_way == 0)
    assert join(made, "finnhub", "AAPL", fetch) is not first
    made.close()


def test_flights_of_a_provider_that_hangs_fill_no_other_providers_places(gate: threading.Event) -> None:
    made, fetch = SingleFlight(2), waiting_for(gate)
    for symbol in ("A", "B"):
        join(made, "finnhub", symbol, fetch)
    with pytest.raises(TooManyFetchesError, match="run at once"):
        join(made, "finnhub", "C", fetch).result(5)
    free = threading.Event()
    free.set()
    assert join(made, "yfinance", "C", waiting_for(free)).result(5).provider == "yfinance"
    gate.set()
    made.close()


def test_places_over_the_limit_are_refused() -> None:
    made = SingleFlight(2)
    with made.admit(), made.admit(), pytest.raises(TooManyFetchesError, match="waiting"), made.admit():
        pass
    with made.admit(), made.admit():
        made.close()


def test_place_of_a_caller_that_fails_is_given_back() -> None:
    made = SingleFlight(1)
    with pytest.raises(LookupError), made.admit():
        raise LookupError
    with made.admit():
        made.close()


def test_work_afterwards_is_done_while_fetches_fill_all_places(gate: threading.Event) -> None:
    made, done = SingleFlight(1), threading.Event()
    join(made, "finnhub", "AAPL", waiting_for(gate))
    made.afterwards(done.set)
    assert done.wait(5)
    gate.set()
    made.close()


def test_flight_that_fails_after_its_callers_have_left_is_logged() -> None:
    made = SingleFlight(1)

    def fail(provider: str, symbol: str) -> PricePoint:
        raise ZeroDivisionError

    def refuse(provider: str, symbol: str) -> PricePoint:
        raise unknown_symbol()

    with capture_logs() as logs:
        join(made, "finnhub", "AAPL", fail)
        join(made, "yfinance", "AAPL", refuse)
        made.close()
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("latest.failed", "error")]


def test_flights_first_used_by_many_at_once_are_the_same(settings: Settings) -> None:
    settings.LATEST_MAX_FETCHES = 3
    forget_single_flight()
    together = threading.Barrier(16)

    def use() -> SingleFlight:
        together.wait(5)
        return single_flight()

    with ThreadPoolExecutor(16) as pool:
        found = {id(use.result()) for use in [pool.submit(use) for _ in range(16)]}
    assert len(found) == 1
    forget_single_flight()


def test_fetch_is_logged_under_the_request_that_began_it(gate: threading.Event) -> None:
    made, seen, fetch = SingleFlight(1), [], waiting_for(gate)

    def note(provider: str, symbol: str) -> PricePoint:
        point = fetch(provider, symbol)
        seen.append(get_contextvars())
        made.afterwards(lambda: seen.append(get_contextvars()))
        return point

    with bound_contextvars(request_id="first"):
        flight = join(made, "finnhub", "AAPL", note)
    with bound_contextvars(request_id="second"):
        assert join(made, "finnhub", "AAPL", note) is flight
    gate.set()
    flight.result(5)
    made.close()
    assert seen == [{"request_id": "first"}] * 2
