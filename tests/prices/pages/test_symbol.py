"""The page of a symbol: what it shows, what it does not claim, and the charts' library."""

import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from django.contrib.staticfiles.finders import find
from django.core.checks import run_checks
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from prices import clock
from prices.clock import database_now
from prices.ledger.gaps import GapReason
from prices.models import PollGap, PricePoint, RawMarketData
from prices.pages import chart_library
from tests.conftest import MakeJob
from tests.stored_prices import PRICES, store_prices

pytestmark = pytest.mark.django_db


def shown(client: Client, symbol: str = "SIM-ACME") -> str:
    answer = client.get(f"/pages/symbols/{symbol}")
    assert answer.status_code == 200
    return answer.content.decode()


def texts(page: str, pattern: str) -> list[str]:
    """Return the texts of what the pattern's group holds."""
    found = re.findall(pattern, page, re.DOTALL)
    return [" ".join(re.sub(r"<.*?>", " ", each).split()) for each in found]


def test_newest_averages_tell_what_they_are_made_of(client: Client) -> None:
    store_prices()
    page = shown(client)
    assert page.count("<details id=") == len(PRICES)
    newest = page.partition('id="averages-title"')[2].partition("</details>")[0]
    assert texts(newest, r"<li>(.*?)</li>") == [
        f"{price}: evidence , raw answer" for price in reversed(PRICES)
    ]
    points = PricePoint.objects.order_by("-id")
    assert re.findall(r'href="/prices/([^"]+)"', newest) == [str(point.id) for point in points]
    assert re.findall(r'href="/raw/([^"]+)"', newest) == [str(point.raw) for point in points]
    assert client.get(f"/raw/{points[0].raw}").status_code == 200


def test_input_whose_point_is_gone_has_no_raw_answer(client: Client) -> None:
    store_prices()
    PricePoint.objects.all().delete()
    page = shown(client)
    assert "raw answer" not in page
    assert "no price of the last 7 days" in page


def test_each_provider_is_shown_with_its_last_price(client: Client) -> None:
    store_prices()
    page = shown(client)
    providers = page.partition('id="providers-title"')[2].partition("</table>")[0]
    (row,) = texts(providers, r"<tr>\s*<th scope=\"row\">(.*?)</tr>")
    assert row.startswith("simulated 102.50 USD fresh")


def test_gaps_of_its_jobs_are_told_in_words(client: Client, make_job: MakeJob) -> None:
    job = make_job(["SIM-ACME"])
    begin = database_now() - timedelta(minutes=5)
    end = begin + timedelta(seconds=9)
    PollGap.objects.create(job=job, from_due=begin, to_due=end, slots=10, reason=GapReason.NOT_POLLED)
    page = shown(client)
    (gap,) = texts(page.partition('class="gaps"')[2].partition("</ul>")[0], r"<li>(.*?)</li>")
    assert gap.endswith("10 slots, no worker polled it in time")
    assert '"from": ' in page


def test_symbol_without_a_price_claims_none(client: Client, make_job: MakeJob) -> None:
    make_job(["SIM-NEW"])
    page = shown(client, "SIM-NEW")
    assert "no price of the last 7 days" in page
    assert "None yet." in page
    assert texts(page, r'<ul class="jobs">(.*?)</ul>') == ["SIM-NEW every 1 s"]


@pytest.mark.parametrize("written", ["sim-acme", "SIM-ACME/", "Sim-Acme"])
def test_symbol_is_found_however_it_is_written(client: Client, written: str) -> None:
    store_prices()
    assert "<h1>SIM-ACME" in shown(client, written)


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [
        ("SIM-NONE", "No job polls SIM-NONE"),
        ("a b", "This is no symbol"),
        ("%3Cscript%3E", "This is no symbol"),
    ],
)
def test_unknown_symbol_is_a_page_that_says_so(client: Client, symbol: str, reason: str) -> None:
    answer = client.get(f"/pages/symbols/{symbol}")
    assert answer.status_code == 404
    page = answer.content.decode()
    assert reason in page
    assert "<script>" not in page


@pytest.mark.parametrize("symbol", ["BRK.B", "^GSPC", "EUR/USD", "BTC-USD", "EURUSD=X", "A&B", "EXCHANGE:A"])
def test_overview_leads_to_symbols_of_all_letters(client: Client, make_job: MakeJob, symbol: str) -> None:
    make_job([symbol], interval=60, provider=None)
    overview = unescape(client.get("/").content.decode())
    (address,) = re.findall(r'<a class="symbol" href="([^"]+)"', overview)
    page = unescape(shown(client, address.removeprefix("/pages/symbols/")))
    (averages,) = re.findall(r'href="(/averages\?symbol=[^"]+)"', page)
    assert client.get(averages).status_code == 200


def test_page_asks_for_a_session_where_keys_are_needed(client: Client, settings: Settings) -> None:
    settings.API_AUTH = "keys"
    assert client.get("/pages/symbols/SIM-ACME").status_code == 302


def test_page_takes_as_many_queries_for_few_rows_as_for_many(
    client: Client, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(["SIM-ACME"])
    # The clock is read each few seconds.
    monkeypatch.setattr(clock, "READ_AGAIN_S", 3600)
    shown(client)
    counts = []
    for _ in range(2):
        store_prices()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            shown(client)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12
    assert RawMarketData.objects.count() == 10


# --- The library ----------------------------------------------------------------------------------


def test_library_is_served_from_its_package(client: Client) -> None:
    page = client.get("/static/" + chart_library.NAME)
    assert page.status_code == 200
    assert b"TradingView Lightweight Charts" in b"".join(page)
    assert chart_library.NAME in [
        f"{storage.prefix}/{path}"  # type: ignore[attr-defined]  # as Django's own finders set it
        for path, storage in chart_library.ChartLibraryFinder().list(None)
    ]


def test_another_file_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [error for error in run_checks(tags=["staticfiles"]) if error.id == "marketdata.E101"]
    other = tmp_path / "other.js"
    other.write_text("alert(1)")
    monkeypatch.setattr(chart_library, "library_file", lambda: other)
    assert find(chart_library.NAME) is None
    assert [error.id for error in run_checks(tags=["staticfiles"])] == ["marketdata.E101"]
    monkeypatch.setattr(chart_library, "library_file", lambda: None)
    assert find(chart_library.NAME) is None
    assert "is not installed" in str(run_checks(tags=["staticfiles"])[0])
