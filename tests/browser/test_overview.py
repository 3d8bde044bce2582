"""The overview in a browser."""

from tests.browser.conftest import Open, check_accessible, check_width


def test_first_symbol_can_be_found_by_its_words(open_page: Open) -> None:
    page = open_page("/")
    assert "Nothing is polled yet" in page.inner_text("main")
    check_accessible(page)
    page.set_viewport_size({"width": 360, "height": 740})
    check_width(page)
