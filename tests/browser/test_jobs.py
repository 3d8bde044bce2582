"""The pages of the jobs in a browser, with the processes that poll."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from playwright.sync_api import expect

from prices.models import PollJob, PollRun
from tests.browser.conftest import Open, check_accessible, check_width
from tests.product import Product
from tests.waiting import wait_until

SLOW_MS = 30_000


def test_job_is_made_polled_paused_resumed_and_stopped(open_page: Open, product: Product, topic: str) -> None:
    product.start("poller-simulated", "maintenance", "beat", "consumer")
    page = open_page("/pages/jobs", color_scheme="dark")
    expect(page.locator("main")).to_contain_text("No job goes on.")
    check_accessible(page)
    page.get_by_role("link", name="New job").click()
    page.get_by_label("Symbols").fill("SIM-A")
    page.get_by_label("Interval in seconds").fill("0")
    expect(page.locator("#plan")).to_contain_text("is out of range", timeout=SLOW_MS)
    page.get_by_label("Interval in seconds").fill("1")
    expect(page.locator("#plan")).to_contain_text("86,400 requests a day", timeout=SLOW_MS)
    assert not PollJob.objects.exists()
    check_accessible(page)
    page.set_viewport_size({"width": 360, "height": 740})
    check_width(page)
    page.get_by_role("button", name="Create job").click()
    expect(page.get_by_text("The job is made")).to_be_visible()
    check_accessible(page)
    price = page.locator(".symbols .price")
    expect(price).to_be_visible(timeout=SLOW_MS)
    first = price.inner_text()
    expect(price).not_to_have_text(first, timeout=SLOW_MS)
    check_width(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused: nothing is polled")).to_be_visible()
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Resumed: it is polled")).to_be_visible()
    runs = PollRun.objects.count()
    wait_until(lambda: PollRun.objects.count() > runs)
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.locator(".strip .polled").first).to_be_visible(timeout=SLOW_MS)
    check_accessible(page)
    check_width(page)
    page.locator(".jobs .name").click()
    page.get_by_text("Stop", exact=True).click()
    page.get_by_role("button", name="Stop it for good").click()
    expect(page.get_by_text("Stopped for good.")).to_be_visible()
    assert PollJob.objects.get().status == "stopped"


def test_service_that_others_reach_asks_for_a_login(open_page: Open, product: Product) -> None:
    product.stop("web")
    product.set_command("web", product.command("web").replace("--host 127.0.0.1", "--host 0.0.0.0"))
    product.start("web")
    wait_until(lambda: product.is_serving("web"), timeout_s=60)
    page = open_page("/pages/jobs")
    page.get_by_role("link", name="Log in to make one").click()
    expect(page.get_by_label("Username:")).to_be_visible()
    # As the product hashes it: the tests' own settings have a faster way.
    password = PBKDF2PasswordHasher().encode("a password of this test", "salt")
    User.objects.create(username="admin", password=password, is_staff=True, is_superuser=True)
    page.get_by_label("Username:").fill("admin")
    page.get_by_label("Password:").fill("a password of this test")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    page.get_by_label("Symbols").fill("SIM-A")
    page.get_by_role("button", name="Create job").click()
    expect(page.get_by_text("The job is made")).to_be_visible()
