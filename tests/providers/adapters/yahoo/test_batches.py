"""Calls for several symbols rest in all processes after a refusal, and not for ever."""

import pytest
from pytest_django import Settings

from providers.adapters.yahoo import batches
from providers.adapters.yahoo.batches import REST_S, asks_singly, rest_batches
from providers.rate_limits.redis_scripts import key_base
from tests.logged import events_logged
from tests.providers.shared_scope import connect, run_out
from tests.waiting import wait_until

BATCHES = "yfinance"


def in_another_process(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether a process that has not asked yet asks singly."""
    monkeypatch.setattr(batches, "_known", ("", 0.0, False))
    return asks_singly(BATCHES)


def test_refusal_counts_in_all_processes_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not asks_singly(BATCHES)
    rest_batches(BATCHES)
    assert asks_singly(BATCHES)
    assert in_another_process(monkeypatch)
    with connect() as client:
        assert REST_S / 2 < client.pttl(f"{key_base(BATCHES)}:batches") / 1000 <= REST_S
    run_out(f"{key_base(BATCHES)}:batches")
    wait_until(lambda: not asks_singly(BATCHES))


@pytest.mark.parametrize("provider", ["finnhub", "alpha_vantage", "simulated"])
def test_provider_without_such_calls_is_not_looked_up(provider: str, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert not asks_singly(provider)


def test_refusal_counts_in_its_process_while_redis_is_away(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert not asks_singly(BATCHES)
    rest_batches(BATCHES)
    monkeypatch.setattr(batches, "_KNOWN_FOR_S", 0.0)
    assert asks_singly(BATCHES)
    assert not in_another_process(monkeypatch)
    assert events_logged(caplog) == {"provider.batches_rest": 1, "provider.rest_not_shared": 1}
