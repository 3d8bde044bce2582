"""The page of a symbol in a browser."""

from playwright.sync_api import Page

from prices.models import SymbolAverage
from tests.browser.conftest import Open, check_accessible, check_width
from tests.product import Product
from tests.stored_prices import store_prices

# Of the chart's canvases one shows the prices: whether something is drawn there.
_IS_DRAWN = """
() => [...document.querySelectorAll("#chart canvas")].some((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3]) colours.add(data.slice(at, at + 3).join());
  return colours.size > 20;
})
"""


def wait_for_chart(page: Page, note: str) -> None:
    page.wait_for_function(
        "(text) => document.getElementById('chart-note').textContent.includes(text)", arg=note
    )
    page.wait_for_function(_IS_DRAWN)


def test_prices_move_and_tell_what_they_are_made_of(product: Product, open_page: Open) -> None:
    store_prices()
    page = open_page("/")
    page.click("text=SIM-ACME")
    wait_for_chart(page, "5 prices in USD")
    assert page.inner_text("#quote .price") == "102.50"
    page.check("input[value=candles]", force=True)
    wait_for_chart(page, "of 1m in USD; made of samples of quotes")
    page.check("input[value='1d']", force=True)
    page.check("input[value=line]", force=True)
    wait_for_chart(page, "prices in USD")
    # By keyboard, and it stays open while prices come.
    page.focus("#rows summary >> nth=0")
    page.keyboard.press("Enter")
    opened = page.get_attribute("#rows details[open]", "id")
    check_accessible(page)
    newest = SymbolAverage.objects.latest("event_id")
    store_prices()
    page.wait_for_function("() => document.querySelectorAll('#rows details').length === 10")
    assert page.get_attribute("#rows details[open]", "id") == opened == f"of-{newest.event_id}"
    with page.expect_navigation():
        page.click("#rows details[open] a >> nth=1")
    assert '"symbol": "SIM-ACME"' in page.inner_text("body")


def test_page_fits_a_phone_in_the_dark(product: Product, open_page: Open) -> None:
    store_prices()
    page = open_page(
        "/pages/symbols/SIM-ACME", color_scheme="dark", viewport={"width": 360, "height": 740}, locale="de-DE"
    )
    wait_for_chart(page, "5 prices in USD")
    check_width(page)
    check_accessible(page)
    page.emulate_media(color_scheme="light")
    check_accessible(page)
