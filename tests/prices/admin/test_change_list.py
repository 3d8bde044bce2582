"""Lists of tables of any size count no further than they show, and say so."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from prices.database.uuid7 import first_id_at
from prices.models import SymbolAverage

LIST = "/admin/prices/symbolaverage/"
NOW = datetime.now(UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rows() -> None:
    """Store 520 rows of one symbol, the newest first, and three of another long ago."""
    ages = [timedelta(minutes=number) for number in range(520)]
    SymbolAverage.objects.bulk_create(
        SymbolAverage(
            event_id=first_id_at(NOW - age), symbol=symbol, price=number + 1, window_size=1, provider="x"
        )
        for symbol, some in (("SIM-A", ages), ("SIM-B", [timedelta(days=500 + each) for each in range(3)]))
        for number, age in enumerate(some)
    )


def page(client: Client, query: str = "") -> str:
    answer = client.get(f"{LIST}{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def prices(page: str) -> list[str]:
    return re.findall(r'field-price">([0-9.]+)<', page)


def test_first_page_has_the_newest_rows_and_says_that_there_are_more(admin_client: Client) -> None:
    first = page(admin_client)
    assert prices(first) == [str(number) for number in range(1, 51)]
    assert "more than 500 symbol averages" in " ".join(first.split())


def test_last_page_has_the_oldest_rows_and_the_number_of_all(admin_client: Client) -> None:
    last = page(admin_client, "?p=11")
    assert prices(last) == [*map(str, range(501, 521)), "1", "2", "3"]
    assert "523 symbol averages" in " ".join(last.split())


def test_search_finds_what_is_old_alone(admin_client: Client) -> None:
    found = page(admin_client, "?q=sim-b")
    assert prices(found) == ["1", "2", "3"]
    assert "3 results" in found


@pytest.mark.parametrize("query", ["?p=12", "?p=0", "?p=-1", "?p=1000000000"])
def test_page_that_is_not_there_leads_to_the_first(admin_client: Client, query: str) -> None:
    answer = admin_client.get(f"{LIST}{query}")
    assert (answer.status_code, answer["Location"]) == (302, f"{LIST}?e=1")


def test_order_stays_by_time(admin_client: Client) -> None:
    assert "sortable" not in page(admin_client)
    assert prices(page(admin_client, "?o=-2"))[0] == "1"


@pytest.mark.parametrize("table", ["rawmarketdata", "pricepoint", "symbolaverage", "pollrun"])
def test_page_asks_nothing_of_the_whole_table(admin_client: Client, table: str) -> None:
    """Neither a count of all rows nor the values that a filter could have."""
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(f"/admin/prices/{table}/").status_code == 200
    asked = " ".join(query["sql"] for query in queries)
    assert "COUNT(" not in asked
    assert "DISTINCT" not in asked


@pytest.mark.parametrize("row_id", ["00000000-0000-0000-0000-000000000000", "f" * 32])
def test_raw_answers_are_searched_by_any_id(admin_client: Client, row_id: str) -> None:
    assert admin_client.get(f"/admin/prices/rawmarketdata/?q={row_id}").status_code == 200
