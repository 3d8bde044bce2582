"""The page of the system in a browser."""

from playwright.sync_api import expect

from tests.browser.conftest import Open, check_accessible, check_width


def test_system_can_be_read_by_everybody(open_page: Open) -> None:
    page = open_page("/pages/system", color_scheme="dark")
    expect(page.get_by_role("row", name="postgresql well")).to_contain_text("Answers.")
    check_accessible(page)
    page.set_viewport_size({"width": 360, "height": 740})
    check_width(page)
    page.emulate_media(color_scheme="light")
    check_accessible(page)
