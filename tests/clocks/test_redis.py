"""What is in Redis with a time to end, where its clock was an hour ahead and is set right."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from pytest_django import Settings

from dev.pytest_services import Services
from providers.base import ErrorKind
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import remaining
from providers.rate_limits.permits import Granted, Refusal, report_outcome, request_permit
from providers.rate_limits.symbol_leases import Lease
from tests.clocks.wall_clock import NoCompilerError, WallClock
from tests.providers.shared_scope import (
    PROVIDER,
    answer,
    connect,
    failure,
    granted,
    granted_soon,
    history,
    quote,
    refused,
    send,
    use_own_scope,
)
from tests.waiting import wait_until

HOUR = timedelta(hours=1)


@pytest.fixture
def clock(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[WallClock]:
    """Yield the clock of Redis, an hour ahead."""
    folder = Path(tempfile.mkdtemp(prefix="clock-"))
    try:
        clock = WallClock(folder)
    except NoCompilerError as error:
        pytest.skip(str(error))
    clock.set_ahead(HOUR)
    with monkeypatch.context() as shifted:
        for name, value in clock.environment.items():
            shifted.setenv(name, value)
        restart(services)
    yield clock
    restart(services)
    shutil.rmtree(folder)


def restart(services: Services) -> None:
    services.valkey.stop()
    services.valkey.start()


def set_redis(clock: WallClock, ahead: timedelta) -> None:
    """Set the clock, and wait until Redis goes by it: it reads it a little later."""
    clock.set_ahead(ahead)
    with connect() as client:
        wait_until(lambda: abs(redis_time(client) - datetime.now(UTC) - ahead) < timedelta(seconds=1))


def redis_time(client: redis.Redis) -> datetime:
    seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def test_hold_lasts_no_longer_than_it_was_told(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "60/1m")
    send(failure(ErrorKind.RATE_LIMITED, retry_after=60))
    set_redis(clock, timedelta())
    assert remaining(PROVIDER).held_for_s <= 60
    set_redis(clock, -HOUR)
    assert 50 < remaining(PROVIDER).held_for_s <= 60


def test_breaker_waits_no_longer_than_its_cooldown(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "none", BREAKER_FAILURES=1, BREAKER_MAX_COOLDOWN_S=0.5)
    send(failure(ErrorKind.UPSTREAM_ERROR))
    set_redis(clock, timedelta())
    found = refused()
    assert found.refusal == Refusal.BROKEN
    assert found.retry_after_s is not None
    assert found.retry_after_s <= 0.5
    state = breaker_state(PROVIDER)
    assert state.last_error_at is not None
    assert state.since is not None
    assert max(state.last_error_at, state.since) <= datetime.now(UTC)
    # Its answer is lost, with the clock set back once more.
    granted_soon()
    set_redis(clock, -HOUR)
    report_outcome(granted_soon(), quote(), answer=answer())
    assert breaker_state(PROVIDER).state == "closed"


def test_lease_of_a_killed_process_ends_in_time(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "none")
    Lease(PROVIDER).take(["AAPL"])
    set_redis(clock, timedelta())
    second = Lease(PROVIDER)
    assert second.take(["AAPL"]).in_flight_elsewhere == ("AAPL",)
    set_redis(clock, timedelta(seconds=6))
    assert second.take(["AAPL"]).ours == ("AAPL",)


def test_unknown_symbol_is_remembered_no_longer(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "none", UNKNOWN_SYMBOL_MEMORY_S=60)
    first = Lease(PROVIDER)
    first.take(["NOPE"])
    first.release(["NOPE"], unknown=["NOPE"])
    set_redis(clock, timedelta())
    assert first.take(["NOPE"]).unknown == ("NOPE",)
    set_redis(clock, timedelta(seconds=61))
    assert first.take(["NOPE"]).ours == ("NOPE",)


def test_counts_of_a_clock_ahead_leave_their_windows_in_time(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "2/1s")
    send()
    send()
    set_redis(clock, timedelta())
    assert remaining(PROVIDER).windows is None
    granted_soon()


def test_counts_a_clock_ahead_forgot_are_restored(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "25/1d")
    load = history(job=[30, 20, 10, 0])
    for days in (2, 0):
        set_redis(clock, timedelta(days=days))
        permit = request_permit(PROVIDER, caller="job", load_history=load)
        assert isinstance(permit, Granted), permit
        report_outcome(permit, quote(), answer=answer())
    windows = remaining(PROVIDER).windows
    assert windows is not None
    # Of the six the first stands for the newest that history knows.
    assert windows[0].used == 5


def test_counts_go_on_after_each_step_back(clock: WallClock, settings: Settings) -> None:
    use_own_scope(settings, "1/1s")
    for hours in (0, -1, -2):
        granted()
        set_redis(clock, hours * HOUR)
        granted_soon()
        set_redis(clock, hours * HOUR + timedelta(seconds=3))
