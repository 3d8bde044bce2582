import threading
import time

import pytest
from pytest_django import Settings

from providers.rate_limits.redis_scripts import SharedStateError, key_base
from providers.rate_limits.symbol_leases import Lease
from tests.providers.shared_scope import run_out, use_own_scope
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def own_scope(settings: Settings) -> None:
    use_own_scope(settings, "none", timeout_s=10)


@pytest.fixture
def leases() -> tuple[Lease, Lease]:
    return Lease("finnhub"), Lease("finnhub")


def test_symbol_is_leased_once_until_its_release(leases: tuple[Lease, Lease]) -> None:
    first, second = leases
    assert first.take(["AAPL", "MSFT"]).ours == ("AAPL", "MSFT")
    found = second.take(["MSFT", "IBM"])
    assert (found.ours, found.in_flight_elsewhere) == (("IBM",), ("MSFT",))
    first.release(["MSFT"])
    assert second.take(["MSFT", "AAPL"]).in_flight_elsewhere == ("AAPL",)


def test_lease_may_be_taken_again(leases: tuple[Lease, Lease]) -> None:
    first, _ = leases
    first.take(["AAPL"])
    assert first.take(["AAPL"]).ours == ("AAPL",)


def test_lease_releases_only_its_own(leases: tuple[Lease, Lease]) -> None:
    first, second = leases
    first.take(["AAPL"])
    second.release(["AAPL"])
    assert second.take(["AAPL"]).in_flight_elsewhere == ("AAPL",)


def test_leases_of_other_providers_do_not_meet(leases: tuple[Lease, Lease]) -> None:
    leases[0].take(["AAPL"])
    assert Lease("alpha_vantage").take(["AAPL"]).ours == ("AAPL",)


def test_lease_of_a_killed_process_runs_out(
    leases: tuple[Lease, Lease], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROVIDER_TIMEOUT_S = 0.1
    monkeypatch.setattr("providers.rate_limits.symbol_leases.STORED_WITHIN_S", 0.0)
    first, second = leases
    first.take(["AAPL"])
    assert second.wait_for_others(["AAPL"], deadline=time.monotonic() + 60)
    assert second.take(["AAPL"]).ours == ("AAPL",)


def test_unknown_symbol_is_remembered_for_a_while(leases: tuple[Lease, Lease], settings: Settings) -> None:
    settings.UNKNOWN_SYMBOL_MEMORY_S = 3600
    first, second = leases
    first.take(["NOPE", "AAPL"])
    first.release(["NOPE", "AAPL"], unknown=["NOPE"])
    found = second.take(["NOPE", "AAPL"])
    assert (found.unknown, found.ours) == (("NOPE",), ("AAPL",))
    run_out(f"{key_base('finnhub')}:unknown:NOPE")
    wait_until(lambda: not Lease("finnhub").take(["NOPE"]).unknown)


def test_memory_of_no_seconds_remembers_nothing(leases: tuple[Lease, Lease], settings: Settings) -> None:
    settings.UNKNOWN_SYMBOL_MEMORY_S = 0
    first, second = leases
    first.take(["NOPE"])
    first.release(["NOPE"], unknown=["NOPE"])
    assert second.take(["NOPE"]).ours == ("NOPE",)


def test_waiting_ends_with_the_release_or_the_time(leases: tuple[Lease, Lease]) -> None:
    first, second = leases
    first.take(["AAPL"])
    assert not second.wait_for_others(["AAPL"], deadline=time.monotonic() + 0.1)
    release = threading.Timer(0.1, first.release, [["AAPL"]])
    release.start()
    assert second.wait_for_others(["AAPL"], deadline=time.monotonic() + 60)
    release.join()


def test_of_many_at_once_one_gets_the_lease() -> None:
    found: list[tuple[str, ...]] = []
    start = threading.Barrier(16)

    def take() -> None:
        lease = Lease("finnhub")
        start.wait()
        found.append(lease.take(["AAPL"]).ours)

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [()] * 15 + [("AAPL",)]


def test_redis_away_leases_nothing_and_releasing_does_not_fail(
    leases: tuple[Lease, Lease], settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    with pytest.raises(SharedStateError):
        leases[0].take(["AAPL"])
    leases[0].release(["AAPL"])
