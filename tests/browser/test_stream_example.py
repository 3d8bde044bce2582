"""What docs/stream.md shows for a page goes on where it was, whatever happens to the server."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from playwright.sync_api import Page

from tests.browser.conftest import Open
from tests.consumers.samples import EventStore, event
from tests.product import Product
from tests.waiting import wait_until

PAGE = (Path(settings.BASE_DIR) / "docs" / "stream.md").read_text()


@pytest.fixture
def store(product: Product) -> Iterator[EventStore]:
    """Yield what averages are stored with, as the consumer does it."""
    made = EventStore()
    yield made
    made.close()


def has_logged(page: Page, logged: list[str], text: str) -> bool:
    """Return whether the page has logged a text; what it logs comes while Playwright is at work."""
    page.wait_for_timeout(50)
    return any(text in each for each in logged)


def test_example_misses_nothing_while_the_server_is_killed(
    product: Product, open_page: Open, store: EventStore
) -> None:
    (code,) = re.findall(r"<script>\n(.+?)</script>", PAGE, re.DOTALL)
    page = open_page("/docs", may_fail=True)
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.evaluate(f"() => {{ {code.replace('127.0.0.1:8001', product.stream_address)} }}")
    wait_until(lambda: has_logged(page, logged, "snapshot"), what=f"the snapshot: {logged}")
    store.write([event(number, symbol="SIM-ACME", price=f"{number}1.5") for number in range(1, 4)])
    wait_until(lambda: has_logged(page, logged, "31.5"), what=f"the third price: {logged}")
    product.kill("stream")
    store.write([event(number, symbol="SIM-ACME", price=f"{number}1.5") for number in range(4, 7)])
    product.start("stream")
    wait_until(lambda: has_logged(page, logged, "61.5"), what=f"the last price: {logged}")
    told = [text for text in logged if text.startswith("price")]
    assert re.findall(r"price: (\d1\.5)", " ".join(told)) == [f"{number}1.5" for number in range(1, 7)]
