"""The page of the providers in a browser."""

from playwright.sync_api import expect

from prices.models import PollJob
from tests.browser.conftest import Open, check_accessible, check_width
from tests.conftest import MakeJob


def test_providers_can_be_read_by_everybody_and_stay_up_to_date(open_page: Open, make_job: MakeJob) -> None:
    page = open_page("/pages/providers", color_scheme="dark")
    simulated = page.locator("#simulated")
    expect(simulated).to_contain_text("No job asks it.")
    check_accessible(page)
    job = make_job(["SIM-A"])
    expect(simulated.get_by_role("link", name="SIM-A")).to_have_attribute(
        "href", f"/pages/jobs/{job.id}", timeout=15_000
    )
    # Who is at a link by keyboard stays there when the page changes.
    simulated.get_by_role("link", name="SIM-A").focus()
    PollJob.objects.update(interval=7)
    expect(simulated).to_contain_text("7 s", timeout=15_000)
    expect(simulated.get_by_role("link", name="SIM-A")).to_be_focused()
    page.set_viewport_size({"width": 360, "height": 740})
    check_width(page)
    page.emulate_media(color_scheme="light")
    check_accessible(page)


def test_lost_connection_is_told_and_comes_back_by_itself(open_page: Open) -> None:
    page = open_page("/pages/providers", may_fail=True)
    expect(page.locator("#connection")).to_be_hidden()
    page.context.set_offline(True)
    expect(page.get_by_role("status")).to_contain_text("No connection: last update", timeout=30_000)
    page.context.set_offline(False)
    expect(page.locator("#connection")).to_be_hidden(timeout=15_000)
