"""The pages in a browser: `python -m bench pages`.

The web process and the stream's server, as the Procfile has them, and Chromium. Times are the browser's own,
what its tab uses is from the DevTools protocol.

first paint   of the overview with its rows, from the begin of the navigation
live          from an event's id, which is made just before its transaction, to its row on the overview
tab           the overview while prices come: the share of a core that the page's thread is busy, and how much
              larger its heap is after a minute, garbage collected
chart         a symbol's chart of so many prices and as many averages, from the rows to the picture
"""

import json
import os
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from playwright.sync_api import CDPSession, Page, Route, sync_playwright

from bench.machine import describe_machine
from bench.service import Service
from bench.stream_clients import symbol_name
from bench.stream_events import SteadyWriter
from dev.chromium import CHROMIUM
from dev.embedded.ports import free_port
from prices.database.uuid7 import made_at_ms

READY_WITHIN_S = 60
DRAWN_WITHIN_MS = 60_000
LOADS, CHARTS = 7, 5
SETTLE_S, WATCHED_S = 5, 20
# Figures stay below these.
GOALS = {"first_paint_ms": 300.0, "live_ms": 1000.0, "tab_cpu": 0.3, "chart_ms": 300.0}
_PAINT = """() => new Promise((done) => {
  const told = (list) => {
    for (const each of list.getEntriesByName("first-contentful-paint")) done(each.startTime);
  };
  new PerformanceObserver(told).observe({ type: "paint", buffered: true });
})"""
# Notes when which event is in its row.
_WATCH = """() => {
  window.seen = [];
  window.watch = new MutationObserver((changes) => {
    for (const { target } of changes) window.seen.push([target.dataset.event, Date.now()]);
  });
  window.watch.observe(document.getElementById("live"), { attributeFilter: ["data-event"], subtree: true });
}"""
# What the notes take is none of the page's memory.
_SEEN = """() => {
  const seen = window.seen;
  window.watch.disconnect();
  delete window.seen;
  return seen;
}"""
# From when the rows are in the page until they are painted.
_CHART = """() => new Promise((done) => {
  const read = Response.prototype.json;
  let began = 0;
  Response.prototype.json = async function () {
    const told = await read.call(this);
    if (this.url.includes("/averages?")) began = performance.now();
    return told;
  };
  const note = document.getElementById("chart-note");
  const drawn = new MutationObserver(() => {
    if (!began) return;
    drawn.disconnect();
    Response.prototype.json = read;
    // The task after a frame begins once that frame is drawn.
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
  });
  drawn.observe(note, { childList: true, characterData: true, subtree: true });
  document.querySelector("input[value='1h']").click();
})"""


@dataclass(frozen=True)
class Plan:
    """How many rows, how many events a second for how long, and how many points a chart has."""

    symbols: int
    rate: int
    seconds: int
    points: int


@dataclass(frozen=True)
class Figures:
    """Medians, but for `live_p99_ms`; `heap_growth_kb` is of the tab after `seconds` of events."""

    rows: int
    first_paint_ms: float
    live_ms: float
    live_p99_ms: float
    tab_cpu: float
    heap_kb: float
    heap_growth_kb: float
    node_growth: int
    chart_ms: float


def run(plan: Plan, *, json_file: Path | None) -> int:
    """Measure and print; return the exit code, 1 where a goal is missed."""
    if CHROMIUM is None:
        raise SystemExit("There is no Chromium here (Debian and Ubuntu: apt install chromium).")
    _say(f"{describe_machine()}\n{plan.symbols} symbols, {plan.rate} events/s for {plan.seconds} s\n")
    writer = SteadyWriter(symbols=plan.symbols)
    for _ in range(6):
        writer.write_each()
    with _service() as address, _page() as page:
        figures = _measure(plan, address, page, writer)
    writer.close()
    for name, value in asdict(figures).items():
        goal = f"   goal: below {GOALS[name]:g}" if name in GOALS else ""
        _say(f"{name:<18}{value:>12,.2f}{goal}")
    missed = [name for name, most in GOALS.items() if asdict(figures)[name] >= most]
    _say(f"\ngoals missed: {', '.join(missed) or 'none'}")
    if json_file:
        told = {"machine": describe_machine(), "plan": asdict(plan)} | asdict(figures) | {"missed": missed}
        json_file.write_text(json.dumps(told, indent=2))
    return 1 if missed else 0


def _measure(plan: Plan, address: str, page: Page, writer: SteadyWriter) -> Figures:
    paints = [_first_paint(page, address) for _ in range(LOADS)]
    rows = page.locator("tr[data-symbol]").count()
    time.sleep(SETTLE_S)
    page.evaluate(_WATCH)
    writer.write(rate=plan.rate, seconds=WATCHED_S)
    took = [at - made_at_ms(UUID(event)) for event, at in page.evaluate(_SEEN)]
    tab = page.context.new_cdp_session(page)
    tab.send("Performance.enable")
    before, began = _tab(tab), time.monotonic()
    writer.write(rate=plan.rate, seconds=plan.seconds)
    seconds, after = time.monotonic() - began, _tab(tab)
    return Figures(
        rows=rows,
        first_paint_ms=statistics.median(paints),
        live_ms=statistics.median(took),
        live_p99_ms=statistics.quantiles(took, n=100)[98],
        tab_cpu=(after["TaskDuration"] - before["TaskDuration"]) / seconds,
        heap_kb=after["heap"] / 1024,
        heap_growth_kb=(after["heap"] - before["heap"]) / 1024,
        node_growth=int(after["Nodes"] - before["Nodes"]),
        chart_ms=_chart(plan, address, page),
    )


def _first_paint(page: Page, address: str) -> float:
    page.goto(f"{address}/")
    return float(page.evaluate(_PAINT))


def _tab(tab: CDPSession) -> dict[str, float]:
    tab.send("HeapProfiler.collectGarbage")
    told = tab.send("Performance.getMetrics")["metrics"]
    heap = tab.send("Runtime.getHeapUsage")["usedSize"]
    return {each["name"]: each["value"] for each in told} | {"heap": heap}


def _chart(plan: Plan, address: str, page: Page) -> float:
    answer = json.dumps({"results": _rows(plan.points), "next": None})
    took = []
    for _ in range(CHARTS):
        page.goto(f"{address}/pages/symbols/{symbol_name(0)}")
        page.locator("#chart-note", has_text="prices").wait_for()
        page.route("**/averages?*", lambda route: _fulfil(route, answer))
        took.append(float(page.evaluate(_CHART)))
        page.unroute("**/averages?*")
    return statistics.median(took)


def _fulfil(route: Route, answer: str) -> None:
    route.fulfill(status=200, content_type="application/json", body=answer)


def _rows(count: int) -> list[dict[str, object]]:
    """Return rows as GET /averages has them, one for each second, the newest first."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [
        {
            "event_id": str(UUID(int=count - number)),
            "symbol": symbol_name(0),
            "price": round(100 + (number * 7919 % 1000) / 100, 2),
            "currency": "USD",
            "average": round(100 + (number * 7907 % 1000) / 100, 3),
            "window_size": 5,
            "provider": "simulated",
            "observed_at": (now - timedelta(seconds=number)).isoformat(),
            "created_at": (now - timedelta(seconds=number)).isoformat(),
        }
        for number in range(count)
    ]


@contextmanager
def _service() -> Iterator[str]:
    """Start what serves the pages; yield their address once they are served."""
    os.environ["PORT"], os.environ["STREAM_PORT"] = str(free_port()), str(free_port())
    os.environ["HTTPS_ONLY"] = "false"
    address = f"http://127.0.0.1:{os.environ['PORT']}"
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        service.start("web")
        service.start("stream")
        deadline = time.monotonic() + READY_WITHIN_S
        while not _is_served(f"{address}/"):
            service.check()
            if time.monotonic() > deadline:
                raise SystemExit("The pages are not served.")
            time.sleep(0.1)
        yield address


def _is_served(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


@contextmanager
def _page() -> Iterator[Page]:
    # Playwright has a loop of its own in this thread, which nothing of Django's waits for.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(DRAWN_WITHIN_MS)
        yield page
        browser.close()


def _say(text: str) -> None:
    print(text, flush=True)
