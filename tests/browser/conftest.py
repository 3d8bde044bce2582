"""Fixtures of the tests in a real browser: Debian's Chromium, driven by Playwright."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from dev.chromium import CHROMIUM
from prices.models import AverageBatch
from tests.product import Product
from tests.waiting import wait_until

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
# What a screen reader or a keyboard cannot get past.
SERIOUS = {"serious", "critical"}

Open = Callable[..., Page]


# Not for longer than a module: while Playwright is there an event loop runs in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a browser; tests are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (Debian and Ubuntu: apt install chromium)")
    with pytest.MonkeyPatch.context() as changes, sync_playwright() as playwright:
        # In an event loop Django refuses to use the database.
        changes.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        # Without a sandbox of its own, which root and containers do not let it have.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def product(browser: Browser, transactional_db: None, tmp_path: Path) -> Iterator[Product]:
    """Yield the product with its web server and its stream; a test starts what else it needs."""
    # As the migration leaves the notes of the stream; other tests delete every row.
    AverageBatch.objects.create(number=0, rows=0, added=[], changed=[])
    product = Product(tmp_path)
    product.start("web", "stream")
    for name in ("web", "stream"):
        wait_until(partial(product.is_serving, name), timeout_s=60, what=name)
    yield product
    product.close()


@pytest.fixture
def open_page(browser: Browser, product: Product) -> Iterator[Open]:
    """Yield a function that opens an address of the product in a new tab, by keywords of Browser.new_context.

    The test fails where a page logs an error, as it does where something is refused by its policy. A test
    that causes one on purpose passes `may_fail=True`.
    """
    faults: list[str] = []
    contexts = []

    def open_address(address: str, *, may_fail: bool = False, **options: object) -> Page:
        context = browser.new_context(**({"color_scheme": "light", "locale": "en-GB"} | options))  # type: ignore[arg-type]  # by name
        contexts.append(context)
        page = context.new_page()
        if not may_fail:
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.extend(_fault_in(message)))
        page.goto(f"http://{product.address}{address}")
        return page

    yield open_address
    for context in contexts:
        context.close()
    assert faults == []


def _fault_in(message: ConsoleMessage) -> list[str]:
    return [f"{message.text} ({message.location})"] if message.type == "error" else []


def check_accessible(page: Page) -> None:
    """Fail where axe finds something serious in the page as it is now."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    serious = [each for each in found["violations"] if each["impact"] in SERIOUS]
    told = [(each["id"], node["html"][:200]) for each in serious for node in each["nodes"]]
    assert told == []


def check_width(page: Page) -> None:
    """Fail where the page is wider than its window, so that it has to be pushed from side to side."""
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"{wider} pixels wider than the window"
