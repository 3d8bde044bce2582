"""The overview in a browser."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import expect

from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.models import PricePoint
from prices.publishing.events import PriceEvent
from tests.browser.conftest import Open, check_accessible, check_width
from tests.consumers.samples import EventStore
from tests.product import Product
from tests.stored_prices import store_prices
from tests.waiting import wait_until

# As a browser tells a tab that another one is looked at; without a window none is ever hidden.
_IS_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def store_price(store: EventStore, price: str) -> None:
    """Store a price of SIM-ACME of now, and its average."""
    point_id, raw_id = new_ids(2)
    now = database_now()
    told: dict[str, Any] = {
        "symbol": "SIM-ACME",
        "price": Decimal(price),
        "provider": "simulated",
        "currency": "USD",
    }
    PricePoint.objects.create(
        id=point_id,
        observed_at=now,
        precision="second",
        received_at=now,
        raw=raw_id,
        published_at=now,
        **told,
    )
    store.write([PriceEvent(event_id=point_id, observed_at=now, **told)])


def test_first_symbol_can_be_found_by_its_words(open_page: Open) -> None:
    page = open_page("/")
    assert "Nothing is polled yet" in page.inner_text("main")
    check_accessible(page)
    page.set_viewport_size({"width": 360, "height": 740})
    check_width(page)


@pytest.fixture
def store() -> Iterator[EventStore]:
    """Yield what averages are stored with, as the consumer does it."""
    made = EventStore()
    yield made
    made.close()


def test_prices_come_by_the_stream_and_come_back(
    product: Product, open_page: Open, store: EventStore
) -> None:
    store_prices()
    page = open_page("/", may_fail=True)
    row = page.locator('tr[data-symbol="SIM-ACME"]')
    expect(row.locator(".price")).to_have_text("102.50 USD")
    wait_until(lambda: product.streams == 1, what="the page's stream")
    # From here on nothing but the stream may bring a price.
    page.route(f"http://{product.address}/", lambda route: route.abort())
    store_price(store, "1234.56")
    expect(row.locator(".price")).to_have_text("1,234.56 USD")
    expect(row.locator(".price")).to_have_class("number price moved-up")
    expect(row.locator(".average")).not_to_have_text("\u2013")
    # An age goes on.
    expect(row.locator(".since")).to_have_text("2 s")
    product.kill("stream")
    product.start("stream")
    store_price(store, "99.5")
    expect(row.locator(".price")).to_have_text("99.5 USD", timeout=30_000)
    expect(page.locator("#connection")).to_contain_text("No connection: last update", timeout=15_000)
    # Nobody says any more that it is.
    expect(row.locator(".state")).to_have_text("not known", timeout=30_000)
    page.unroute(f"http://{product.address}/")
    expect(page.locator("#connection")).to_be_hidden(timeout=15_000)
    expect(row.locator(".state")).to_have_text("fresh")


def test_tab_that_is_hidden_lets_go_of_its_stream_and_catches_up(
    product: Product, open_page: Open, store: EventStore
) -> None:
    store_prices()
    tabs = [open_page("/"), open_page("/")]
    prices = [tab.locator('tr[data-symbol="SIM-ACME"] .price') for tab in tabs]
    wait_until(lambda: product.streams == 2, what="the streams of both")
    store_price(store, "7.5")
    for price in prices:
        expect(price).to_have_text("7.5 USD")
    tabs[0].evaluate(_IS_HIDDEN, True)
    wait_until(lambda: product.streams == 1, what="one stream fewer")
    store_price(store, "8.25")
    expect(prices[1]).to_have_text("8.25 USD")
    expect(prices[0]).to_have_text("7.5 USD")
    tabs[0].evaluate(_IS_HIDDEN, False)
    expect(prices[0]).to_have_text("8.25 USD")
    wait_until(lambda: product.streams == 2, what="the stream again")
    store_price(store, "9.125")
    for price in prices:
        expect(price).to_have_text("9.125 USD")
