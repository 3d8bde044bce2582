"""`python -m tests.browser.screenshots [folder]`: pictures of each page."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import requests
from playwright.sync_api import Browser, sync_playwright

from dev.chromium import CHROMIUM
from dev.embedded.ports import free_port

PAGES = {
    "overview": "/",
    "symbol": "/pages/symbols/SIM-ACME",
    "jobs": "/pages/jobs",
    "new-job": "/pages/jobs/new",
    "providers": "/pages/providers",
    "system": "/pages/system",
}
WINDOWS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 420}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 420}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}
START_S = 300
# For a line that is one: two minutes of the job that a new service polls.
AVERAGES = 60
SETTLE_MS = 1500


@contextmanager
def _service() -> Iterator[str]:
    """Start what `make run` starts, on free ports; yield its address once there is something to see."""
    began, port = datetime.now(UTC), free_port()
    environment = os.environ | {"PORT": str(port), "STREAM_PORT": str(free_port())}
    process = subprocess.Popen(
        [sys.executable, "-m", "dev", "run"], env=environment, stdout=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while len(_averages(address, since=began)) < AVERAGES:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit("The service did not start: `make run` says why.")
            time.sleep(0.5)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _averages(address: str, *, since: datetime) -> list[object]:
    query: dict[str, str | int] = {"symbol": "SIM-ACME", "since": since.isoformat(), "limit": AVERAGES}
    try:
        answer = requests.get(f"{address}/averages", query, timeout=5)
        answer.raise_for_status()
    except requests.RequestException:
        return []
    return list(answer.json()["results"])


def _take(browser: Browser, address: str, folder: Path) -> None:
    for name, path in PAGES.items():
        for window, options in WINDOWS.items():
            context = browser.new_context(**options)  # type: ignore[arg-type]  # by name
            page = context.new_page()
            answer = page.goto(address + path)
            if answer is not None and answer.status == HTTPStatus.NOT_FOUND:
                sys.stdout.write(f"{path}: skipped, there is no such page\n")
                context.close()
                break
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=folder / f"{name}-{window}.png", full_page=True)
            context.close()


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    if CHROMIUM is None:
        sys.exit("There is no Chromium here (Debian and Ubuntu: apt install chromium).")
    folder.mkdir(parents=True, exist_ok=True)
    with _service() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        _take(browser, address, folder)
        browser.close()
    sys.stdout.write(f"The pictures are in {folder}.\n")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["docs/pictures"]))
