import threading
import time

import pytest
from pytest_django import Settings

from providers.flights import Flight
from providers.shared_state import SharedStateError
from tests.providers.shared_scope import use_own_scope


@pytest.fixture(autouse=True)
def own_scope(settings: Settings) -> None:
    use_own_scope(settings, "none", timeout_s=10)


@pytest.fixture
def flights() -> tuple[Flight, Flight]:
    return Flight("finnhub"), Flight("finnhub")


def test_symbol_flies_once_until_it_lands(flights: tuple[Flight, Flight]) -> None:
    first, second = flights
    assert first.take_off(["AAPL", "MSFT"]).ours == ("AAPL", "MSFT")
    found = second.take_off(["MSFT", "IBM"])
    assert (found.ours, found.elsewhere) == (("IBM",), ("MSFT",))
    first.land(["MSFT"])
    assert second.take_off(["MSFT", "AAPL"]).elsewhere == ("AAPL",)


def test_flight_may_take_off_again(flights: tuple[Flight, Flight]) -> None:
    first, _ = flights
    first.take_off(["AAPL"])
    assert first.take_off(["AAPL"]).ours == ("AAPL",)


def test_flight_lands_only_what_it_flies(flights: tuple[Flight, Flight]) -> None:
    first, second = flights
    first.take_off(["AAPL"])
    second.land(["AAPL"])
    assert second.take_off(["AAPL"]).elsewhere == ("AAPL",)


def test_flights_of_other_providers_do_not_meet(flights: tuple[Flight, Flight]) -> None:
    flights[0].take_off(["AAPL"])
    assert Flight("alpha_vantage").take_off(["AAPL"]).ours == ("AAPL",)


def test_flight_of_a_killed_process_ends(
    flights: tuple[Flight, Flight], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROVIDER_TIMEOUT_S = 0.1
    monkeypatch.setattr("providers.flights.STORED_WITHIN_S", 0.0)
    first, second = flights
    first.take_off(["AAPL"])
    assert second.wait_for_others(["AAPL"], until=time.monotonic() + 5)
    assert second.take_off(["AAPL"]).ours == ("AAPL",)


def test_unknown_symbol_is_remembered_for_a_while(flights: tuple[Flight, Flight], settings: Settings) -> None:
    settings.UNKNOWN_SYMBOL_MEMORY_S = 1
    first, second = flights
    first.take_off(["NOPE", "AAPL"])
    first.land(["NOPE", "AAPL"], unknown=["NOPE"])
    found = second.take_off(["NOPE", "AAPL"])
    assert (found.unknown, found.ours) == (("NOPE",), ("AAPL",))
    deadline = time.monotonic() + 5
    while Flight("finnhub").take_off(["NOPE"]).unknown:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_memory_of_no_seconds_remembers_nothing(flights: tuple[Flight, Flight], settings: Settings) -> None:
    settings.UNKNOWN_SYMBOL_MEMORY_S = 0
    first, second = flights
    first.take_off(["NOPE"])
    first.land(["NOPE"], unknown=["NOPE"])
    assert second.take_off(["NOPE"]).ours == ("NOPE",)


def test_waiting_ends_with_the_landing_or_the_time(flights: tuple[Flight, Flight]) -> None:
    first, second = flights
    first.take_off(["AAPL"])
    assert not second.wait_for_others(["AAPL"], until=time.monotonic() + 0.1)
    landing = threading.Timer(0.1, first.land, [["AAPL"]])
    landing.start()
    assert second.wait_for_others(["AAPL"], until=time.monotonic() + 5)
    landing.join()


def test_of_many_at_once_one_takes_off() -> None:
    found: list[tuple[str, ...]] = []
    start = threading.Barrier(16)

    def take_off() -> None:
        flight = Flight("finnhub")
        start.wait()
        found.append(flight.take_off(["AAPL"]).ours)

    threads = [threading.Thread(target=take_off) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [()] * 15 + [("AAPL",)]


def test_redis_away_lets_nobody_take_off_and_landing_not_fail(
    flights: tuple[Flight, Flight], settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    with pytest.raises(SharedStateError):
        flights[0].take_off(["AAPL"])
    flights[0].land(["AAPL"])
