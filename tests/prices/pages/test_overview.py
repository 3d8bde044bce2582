"""The overview: what it shows of each symbol, and what it does not claim."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from unittest.mock import Mock

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles.finders import find
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from prices.access.keys import create_key
from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.models import PriceBar, PricePoint, Scope, SymbolAverage
from prices.models.poll_job import MAX_SYMBOLS
from prices.pages import page
from prices.pages.last_closes import changes_since_close
from prices.pages.overview import views
from prices.pages.overview.rows import ROWS
from prices.pages.overview.sparkline import polyline
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
UNKNOWN = "\u2013"
# A Wednesday, 15:00 in New York.
OPEN = datetime(2026, 11, 18, 20, 0, tzinfo=UTC)
TUESDAY_CLOSE = datetime(2026, 11, 17, 21, 0, tzinfo=UTC)


def add_point(symbol: str, price: str, *, provider: str = "simulated", age: timedelta = MINUTE) -> PricePoint:
    point_id, raw_id = new_ids(2)
    now = database_now()
    return PricePoint.objects.create(
        id=point_id,
        symbol=symbol,
        provider=provider,
        price=Decimal(price),
        currency="USD",
        observed_at=now - age,
        precision="second",
        received_at=now,
        raw=raw_id,
    )


def add_bar(point: PricePoint, start: datetime, close: str, *, interval: str, last: datetime) -> None:
    price = Decimal(close)
    PriceBar.objects.create(
        symbol=point.symbol,
        interval=interval,
        start=start,
        provider=point.provider,
        currency=point.currency or "",
        open=price,
        high=price,
        low=price,
        close=price,
        samples=1,
        first_observed_at=last,
        last_observed_at=last,
    )


def cells(page: str, symbol: str) -> list[str]:
    """Return the texts of a symbol's row."""
    row = re.search(rf'<tr data-symbol="{re.escape(symbol)}"[^>]*>(.*?)</tr>', page, re.DOTALL)
    assert row, f"{symbol} is not shown"
    found = re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row[1], re.DOTALL)
    return [" ".join(re.sub(r"<.*?>", " ", cell).split()) for cell in found]


def shown(client: Client, query: str = "") -> str:
    answer = client.get(f"/{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_row_tells_price_average_age_and_provider(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-A"])
    point = add_point("SIM-A", "12345.6700", age=timedelta(minutes=5))
    add_point("AAPL", "210.5", provider="finnhub")
    SymbolAverage.objects.create(
        event_id=point.id,
        symbol=point.symbol,
        price=point.price,
        currency="USD",
        average=Decimal("1234.5"),
        window_size=5,
        provider=point.provider,
        observed_at=point.observed_at,
    )
    page = shown(client)
    told = cells(page, "SIM-A")
    assert told[:4] == ["SIM-A simulated", "12,345.6700 USD", UNKNOWN, "1,234.5"]
    assert told[5].startswith("delayed 5 min")
    assert told[6] == "simulated"
    assert cells(page, "AAPL")[0] == "AAPL not polled"


def test_symbol_without_a_price_claims_none(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-A"])
    unknown = [UNKNOWN] * 3
    assert cells(shown(client), "SIM-A") == ["SIM-A simulated", *unknown, "", "no price yet", ""]


def test_empty_service_says_how_to_begin(client: Client) -> None:
    page = shown(client)
    assert "Nothing is polled yet" in page
    assert "curl http://testserver/prices/poll" in page


def test_symbols_are_found_by_a_part(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-A", "SIM-B"])
    page = shown(client, "?q=im-b")
    assert cells(page, "SIM-B")
    assert 'data-symbol="SIM-A"' not in page
    for wrong in ("zzz", "<script>", "a b"):
        page = shown(client, f"?q={wrong}")
        assert "No symbol has" in page
        assert "<script>" not in page


def test_many_symbols_are_paged(client: Client, make_job: MakeJob) -> None:
    names = [f"SIM-{number:03}" for number in range(ROWS + 3)]
    for begin in range(0, len(names), MAX_SYMBOLS):
        make_job(names[begin : begin + MAX_SYMBOLS])
    first = shown(client)
    following = re.search(r'href="\?(after=[^"]+)"', first)
    assert following
    second = shown(client, f"?{following[1]}")
    told = [re.findall(r'data-symbol="(.+?)"', page) for page in (first, second)]
    assert told == [names[:ROWS], names[ROWS:]]


def test_line_is_of_the_last_closes(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-A"])
    point = add_point("SIM-A", "3")
    start = database_now().replace(second=0, microsecond=0)
    for number, close in enumerate(["1", "3", "2"]):
        add_bar(point, start + number * MINUTE, close, interval="1m", last=start)
    assert '<polyline points="0.0,26.0 60.0,2.0 120.0,14.0"/>' in shown(client)


def test_line_of_a_price_that_stands_still_is_in_the_middle() -> None:
    assert polyline([Decimal(5), Decimal(5)]) == "0.0,14.0 120.0,14.0"


def stock(observed_at: datetime, symbol: str = "AAPL") -> PricePoint:
    point = add_point(symbol, "210", provider="finnhub")
    PricePoint.objects.filter(id=point.id).update(observed_at=observed_at)
    point.observed_at = observed_at
    return point


@pytest.mark.parametrize(
    ("observed_at", "day", "last", "is_known"),
    [
        (OPEN, "2026-11-17", TUESDAY_CLOSE, True),
        # Seen in the last ten minutes, or only before.
        (OPEN, "2026-11-17", TUESDAY_CLOSE - timedelta(minutes=10), True),
        (OPEN, "2026-11-17", TUESDAY_CLOSE - timedelta(minutes=11), False),
        # Of an older session, or of the price's own.
        (OPEN, "2026-11-16", TUESDAY_CLOSE - timedelta(days=1), False),
        (OPEN, "2026-11-18", OPEN, False),
        # After midnight in UTC, and on Saturday, the session is still the same.
        (OPEN + timedelta(hours=6), "2026-11-17", TUESDAY_CLOSE, True),
        (datetime(2026, 11, 21, 12, tzinfo=UTC), "2026-11-19", TUESDAY_CLOSE + timedelta(days=2), True),
        # Monday's is compared with Friday's.
        (datetime(2026, 11, 23, 16, tzinfo=UTC), "2026-11-20", TUESDAY_CLOSE + timedelta(days=3), True),
    ],
)
def test_change_is_since_the_close_of_the_session_before(
    observed_at: datetime, day: str, last: datetime, is_known: bool
) -> None:
    point = stock(observed_at)
    add_bar(point, datetime.fromisoformat(f"{day}T00:00:00Z"), "200", interval="1d", last=last)
    change = changes_since_close([point], now=observed_at).get("AAPL")
    assert (change is not None) == is_known
    if change:
        assert (change.amount, change.percent) == (Decimal(10), Decimal(5))


@pytest.mark.parametrize("changes", [{"provider": "yfinance"}, {"currency": "EUR"}])
def test_close_of_another_provider_or_currency_is_not_compared(changes: dict[str, str]) -> None:
    point = stock(OPEN)
    add_bar(point, datetime(2026, 11, 17, tzinfo=UTC), "200", interval="1d", last=TUESDAY_CLOSE)
    PriceBar.objects.update(**changes)
    assert changes_since_close([point], now=OPEN) == {}


def test_what_trades_always_has_no_close() -> None:
    point = stock(OPEN, "SIM-A")
    add_bar(point, datetime(2026, 11, 17, tzinfo=UTC), "200", interval="1d", last=OPEN)
    assert changes_since_close([point], now=OPEN) == {}


def test_page_loads_nothing_from_elsewhere(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-A"])
    answer = client.get("/")
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = answer.content.decode()
    assert not re.findall(r"<script(?! src=\"/static/)|<style| style=| on\w+=", page)
    files = re.findall(r'(?:src|href)="/static/([^"]+)"', page)
    assert len(files) == 3
    assert all(map(find, files))
    assert answer["Cache-Control"] == "no-store"


def test_tab_of_any_answer_has_an_icon(client: Client) -> None:
    answer = client.get("/favicon.ico", follow=True)
    assert answer["Content-Type"] == "image/svg+xml"
    answer.close()


def test_page_leads_to_what_programs_call(client: Client) -> None:
    page = shown(client)
    for address in [
        "/symbols",
        "/averages?limit=20",
        "/jobs",
        "/providers",
        "/admin/",
        "/docs",
        "/api/schema",
        "/readyz",
    ]:
        assert f'href="{address}"' in page
        assert client.get(address, follow=True).status_code in {200, 503}


def test_page_asks_for_a_session_where_keys_are_needed(client: Client, settings: Settings) -> None:
    settings.API_AUTH = "keys"
    answer = client.get("/?q=a")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/%3Fq%3Da")
    # A key opens calls: a browser sends none.
    key = create_key("team", [Scope.READ], expires_at=None)
    assert client.get("/", headers={"X-API-Key": key.text}).status_code == 302
    client.force_login(User.objects.create_user("person", is_staff=True))
    assert client.get("/").status_code == 200


def test_database_that_is_away_is_said_on_the_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> datetime:
        raise OperationalError("connection failed")

    monkeypatch.setattr(views, "recent_now", lost)
    answer = client.get("/")
    assert answer.status_code == 503
    assert "The database cannot be reached." in answer.content.decode()


def test_database_that_is_away_before_anybody_is_known_is_said_too(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.API_AUTH = "keys"
    monkeypatch.setattr(page, "session_access", Mock(side_effect=OperationalError("connection failed")))
    answer = client.get("/")
    assert answer.status_code == 503
    assert "The database cannot be reached." in answer.content.decode()


def test_overview_takes_few_queries(client: Client, make_job: MakeJob) -> None:
    make_job([f"SIM-{number}" for number in range(50)])
    for number in range(50):
        add_point(f"SIM-{number}", "5")
    shown(client)
    with CaptureQueriesContext(connection) as queries:
        shown(client)
    assert len(queries) <= 5


def test_links_at_the_top_lead_to_pages(client: Client) -> None:
    nav = re.search(r"<nav.*?</nav>", client.get("/").content.decode(), re.DOTALL)
    assert nav is not None
    links = re.findall(r'href="([^"]+)"', nav[0])
    assert len(links) == 6
    found = {link: client.get(link, follow=True)["Content-Type"] for link in links}
    assert set(found.values()) == {"text/html; charset=utf-8"}, found
