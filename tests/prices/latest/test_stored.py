"""The newest stored price, and when it stands in for one that cannot be fetched."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from prices.fetching.last_points import LOOKED_AT
from prices.latest.errors import NoPriceError
from prices.latest.services import Served
from prices.latest.single_flight import single_flight
from prices.latest.stored import stand_in, stored_points, stored_prices
from prices.models import PricePoint
from prices.models.price_point import newest_first
from providers.base import NotConfiguredError
from tests.prices.one_price import latest_price
from tests.prices.two_providers import TwoProviders, add_point

pytestmark = pytest.mark.django_db(transaction=True)
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY_S = 86_400


def ask(provider: str | None = None, *, symbol: str = "AAPL") -> Served:
    return latest_price(symbol, provider, now=datetime.now(UTC))


def failed(served: Served) -> list[tuple[str, str]]:
    return [(failure.provider, failure.kind) for failure in served.failures]


# --- What is stored -------------------------------------------------------------------------------


@given(st.lists(st.none() | st.integers(0, 5)))
def test_newest_is_first_by_the_providers_time_and_no_time_is_last(hours: list[int | None]) -> None:
    points = [
        PricePoint(id=UUID(int=place), observed_at=None if hour is None else NOON + timedelta(hours=hour))
        for place, hour in enumerate(hours)
    ]
    found = [point.observed_at for point in newest_first(points)]
    timed = [time for time in found if time is not None]
    assert timed == sorted(timed, reverse=True)
    assert found == timed + [None] * (len(found) - len(timed))


@pytest.mark.parametrize(
    ("precision", "observed_h_ago", "is_known"),
    [("day", 0, False), ("day", 20, True), ("second", 0, True), ("unknown", None, False)],
    ids=["running-day", "day-that-is-over", "this-second", "none"],
)
def test_time_of_a_price_of_the_running_day_is_not_known(
    precision: str, observed_h_ago: int | None, is_known: bool
) -> None:
    observed_at = None if observed_h_ago is None else NOON - timedelta(hours=observed_h_ago)
    point = PricePoint(observed_at=observed_at, precision=precision, received_at=NOON)
    assert point.known_time == (observed_at if is_known else None)


def test_price_of_the_running_day_comes_after_those_of_a_known_time() -> None:
    of_day = PricePoint(id=UUID(int=2), observed_at=NOON, precision="day", received_at=NOON)
    of_hours_ago = PricePoint(
        id=UUID(int=1), observed_at=NOON - timedelta(hours=9), precision="second", received_at=NOON
    )
    assert newest_first([of_day, of_hours_ago]) == [of_hours_ago, of_day]


def test_stored_points_are_those_of_the_symbol_the_provider_and_the_time() -> None:
    finnhub = add_point("finnhub", observed_s_ago=10, received_s_ago=10)
    yahoo = add_point("yfinance", observed_s_ago=10, received_s_ago=10)
    add_point("finnhub", observed_s_ago=30, received_s_ago=30)
    add_point("finnhub", observed_s_ago=10, received_s_ago=10, symbol="MSFT")
    after = datetime.now(UTC) - timedelta(seconds=20)
    assert {point.id for point in stored_points("AAPL", None, received_after=after)} == {finnhub.id, yahoo.id}
    assert [point.id for point in stored_points("AAPL", "yfinance", received_after=after)] == [yahoo.id]


def test_stored_points_of_a_busy_symbol_are_the_last_of_each_provider() -> None:
    quiet = add_point("yfinance", observed_s_ago=100, received_s_ago=100)
    busy = [add_point("finnhub", observed_s_ago=5, received_s_ago=5).id for _ in range(LOOKED_AT + 3)]
    found = stored_points("AAPL", None, received_after=datetime.now(UTC) - timedelta(hours=1))
    assert {point.id for point in found} == {quiet.id, *busy[3:]}


def test_stored_price_of_a_provider_that_goes_back_in_time_is_the_newest() -> None:
    add_point("finnhub", price="2", observed_s_ago=5, received_s_ago=4)
    add_point("finnhub", price="1", observed_s_ago=9, received_s_ago=1)
    received_after = datetime.now(UTC) - timedelta(seconds=15)
    assert stored_prices(["AAPL"], "finnhub", received_after=received_after)["AAPL"].price == 2


def test_reuse_without_provider_gives_the_newest_of_a_provider_asked_before(providers: TwoProviders) -> None:
    add_point("yfinance", price="1", observed_s_ago=50, received_s_ago=40)
    add_point("finnhub", price="2", observed_s_ago=3600, received_s_ago=5)
    assert ask().point.price == 1
    assert ask("finnhub").point.price == 2
    assert providers.requests("finnhub") == 0


# --- What may stand in ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed_s_ago", "received_s_ago", "stands_in"),
    [
        (10, 5, True),
        (600, 590, True),
        (3600, 20, False),
        (None, 20, False),
        (10, 6 * DAY_S, True),
        (10, 8 * DAY_S, False),
    ],
    ids=["fresh", "delayed", "stale", "unknown", "within-7-days", "before-7-days"],
)
def test_stored_price_stands_in_while_fresh_or_delayed(
    observed_s_ago: int | None, received_s_ago: int, stands_in: bool
) -> None:
    # A market that never closes: what is stale does not depend on the day.
    add_point("finnhub", observed_s_ago=observed_s_ago, received_s_ago=received_s_ago, symbol="BTC-USD")
    found = stand_in("BTC-USD", None, now=datetime.now(UTC))
    assert (found is not None) == stands_in


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ('{"error":"API limit reached."}', 429, "rate_limited"),
        ('{"error":"Invalid API key."}', 401, "invalid_key"),
        ("down", 503, "upstream_error"),
        ('{"c":"x"}', 200, "malformed"),
    ],
)
def test_fetch_that_fails_is_stood_in_for_with_the_true_time(
    providers: TwoProviders, body: str, status: int, kind: str
) -> None:
    stored = add_point("finnhub", observed_s_ago=120, received_s_ago=110)
    providers.answer("finnhub", body, status=status)
    served = ask("finnhub")
    assert (served.point.id, served.point.observed_at) == (stored.id, stored.observed_at)
    assert failed(served) == [("finnhub", kind)]


def test_all_that_fail_are_stood_in_for_by_the_newest_of_any_provider(providers: TwoProviders) -> None:
    add_point("finnhub", price="1", observed_s_ago=120, received_s_ago=60)
    add_point("yfinance", price="2", observed_s_ago=90, received_s_ago=80)
    providers.answer("finnhub", UNKNOWN)
    providers.answer("alpha_vantage", "down", status=503)
    served = ask()
    assert served.point.price == 2
    assert failed(served) == [("finnhub", "unknown_symbol"), ("alpha_vantage", "upstream_error")]


def test_named_provider_that_fails_is_not_stood_in_for_by_another(providers: TwoProviders) -> None:
    add_point("yfinance", observed_s_ago=90, received_s_ago=80)
    providers.answer("finnhub", "down", status=503)
    with pytest.raises(NoPriceError, match="finnhub: upstream_error"):
        ask("finnhub")


def test_stale_price_never_stands_in(providers: TwoProviders) -> None:
    add_point("finnhub", observed_s_ago=30 * DAY_S, received_s_ago=20)
    providers.answer("finnhub", "down", status=503)
    with pytest.raises(NoPriceError, match="finnhub: upstream_error"):
        ask("finnhub")


def test_unknown_symbol_is_not_stood_in_for(providers: TwoProviders) -> None:
    add_point("finnhub", observed_s_ago=20, received_s_ago=20)
    providers.answer("finnhub", UNKNOWN)
    providers.answer("alpha_vantage", '{"Global Quote": {}}')
    with pytest.raises(NoPriceError, match="finnhub: unknown_symbol"):
        ask("finnhub")
    with pytest.raises(NoPriceError):
        ask()


def test_provider_without_key_is_not_stood_in_for(providers: TwoProviders, settings: Settings) -> None:
    add_point("finnhub", observed_s_ago=20, received_s_ago=20)
    settings.FINNHUB_API_KEY = ""
    with pytest.raises(NotConfiguredError):
        ask("finnhub")


def test_provider_that_hangs_is_stood_in_for(providers: TwoProviders, settings: Settings) -> None:
    settings.LATEST_DEADLINE_S = 0.2
    add_point("finnhub", observed_s_ago=20, received_s_ago=20)
    providers.hang("finnhub")
    assert failed(ask("finnhub")) == [("finnhub", "timeout")]


def test_price_that_goes_stale_while_it_is_waited_for_does_not_stand_in(
    providers: TwoProviders, settings: Settings
) -> None:
    settings.LATEST_DEADLINE_S = 1
    point = add_point("finnhub", observed_s_ago=1200, received_s_ago=1000, symbol="BTC-USD")
    point.observed_at = datetime.now(UTC) - timedelta(seconds=1199.5)
    point.save(update_fields=["observed_at"])
    providers.hang("finnhub")
    with pytest.raises(NoPriceError, match="finnhub: timeout"):
        ask("finnhub", symbol="BTC-USD")


def test_callers_over_the_limit_are_stood_in_for(providers: TwoProviders, settings: Settings) -> None:
    settings.LATEST_MAX_FETCHES = 1
    add_point("finnhub", observed_s_ago=20, received_s_ago=20)
    with single_flight().admit():
        assert failed(ask("finnhub")) == [("finnhub", "too_many_fetches")]
        with pytest.raises(NoPriceError, match="finnhub: too_many_fetches"):
            ask("finnhub", symbol="MSFT")
    assert providers.requests("finnhub") == 0
