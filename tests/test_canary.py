"""No key appears anywhere: each provider repeats it and fails in every way, then every place is searched."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import redis
import requests
from django.conf import settings as django_settings
from django.test import Client
from rest_framework.test import APIClient

from prices.models import PollRun, PricePoint, RawMarketData, SymbolAverage
from tests.canary_search import (
    Place,
    admin_pages,
    answer_of,
    files_below,
    find,
    keys_and_values_of_redis,
    messages_of,
    rows_of_all_tables,
)
from tests.hostile_providers import CASES, PRICE, HostileProviders, hostile_providers
from tests.product import Product
from tests.waiting import wait_until

# Percent-encoding changes all but Finnhub's, which is a plain one; a crumb and a cookie hold no space.
ALPHA_VANTAGE_KEY = 'Canary/Avantage+key="&%1 kbd'
FINNHUB_KEY = "canaryFinnhubkey0123456789"
CRUMB = "Canary/crumb+=&%2.Qwertyuiop"
COOKIE = "d=CanaryCookie/+%2B&S=Asdfghjkl"
SECRETS = [ALPHA_VANTAGE_KEY, FINNHUB_KEY, CRUMB, COOKIE]
PROVIDERS = ["alpha_vantage", "finnhub", "yfinance"]
PROCESSES = [
    "web",
    "poller-alpha-vantage",
    "poller-finnhub",
    "poller-yfinance",
    "maintenance",
    "beat",
    "consumer",
]
JOB_INTERVAL_S = 3
# Yahoo's failures come one after another: each new crumb waits for the one before it.
LATEST_WITHIN_S = 60
NOW = datetime.now(UTC)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server() -> Iterator[HostileProviders]:
    with hostile_providers(crumb=CRUMB, cookie=COOKIE) as providers:
        yield providers


@pytest.fixture
def product(
    transactional_db: None, topic: str, tmp_path: Path, server: HostileProviders
) -> Iterator[Product]:
    running = Product(
        tmp_path,
        LOG_LEVEL="DEBUG",
        ALPHA_VANTAGE_API_KEY=ALPHA_VANTAGE_KEY,
        FINNHUB_API_KEY=FINNHUB_KEY,
        ALPHA_VANTAGE_BASE_URL=server.url,
        FINNHUB_BASE_URL=server.url,
        YAHOO_BASE_URL=server.url,
        ALPHA_VANTAGE_BUDGET="none",
        FINNHUB_BUDGET="none",
        YAHOO_BUDGET="none",
        BREAKER_FAILURES="1000",
        PROVIDER_TIMEOUT_S="1",
        OUTBOX_SWEEP_AFTER_S="1",
    )
    yield running
    running.close()


@contextmanager
def never_held(url: str) -> Iterator[None]:
    """Lift at once what holds a provider back after a refusal: the next failure is waiting."""
    over = threading.Event()

    def lift() -> None:
        with redis.Redis.from_url(url) as client:
            while not over.wait(0.03):
                for pattern in ("marketdata:*:hold", "marketdata:*:breaker", "marketdata:*:batches"):
                    for key in client.scan_iter(pattern, count=1000):
                        client.delete(key)

    thread = threading.Thread(target=lift)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def symbols_of(path: str) -> dict[str, list[str]]:
    return {f"{provider} {path}-{case}": [f"{path}-{case}"] for provider in PROVIDERS for case in CASES}


def create_jobs(api: APIClient) -> dict[str, str]:
    """Create a job for each failure of each provider; Yahoo's with two symbols, so that a crumb is needed."""
    job_ids = {}
    for name, symbols in symbols_of("JOB").items():
        provider = name.partition(" ")[0]
        if provider == "yfinance":
            symbols = [*symbols, f"{symbols[0]}.2"]
        body = {"symbols": symbols, "interval": JOB_INTERVAL_S, "provider": provider}
        job_ids[name] = api.post("/prices/poll", body, format="json").json()["job_id"]
    return job_ids


def latest_of_all(address: str, server: HostileProviders) -> list[Place]:
    """Ask for the price of every failure over REST until its provider has been asked; return the answers."""

    def ask(name: str) -> list[Place]:
        provider, symbol = name.split(" ")
        found = []
        deadline = time.monotonic() + LATEST_WITHIN_S
        while not server.echoed[name] and time.monotonic() < deadline:
            query = {"symbol": symbol, "provider": provider, "expand": "quality"}
            answer = requests.get(f"http://{address}/prices/latest", query, timeout=10)
            found += answer_of(f"latest {name} {answer.status_code}", answer)
        return found

    with ThreadPoolExecutor(6) as pool:
        return [place for places in pool.map(ask, symbols_of("LATEST")) for place in places]


def answers_of_rest(address: str, job_ids: Iterable[str]) -> Iterator[Place]:
    paths = [
        "/jobs?limit=1000",
        "/providers",
        "/averages?limit=1000",
        "/symbols?limit=1000",
        "/readyz",
        "/livez",
        "/api/schema",
        "/docs",
    ]
    paths += ["/", "/nowhere", "/prices/latest", "/prices/latest?symbol=LATEST-GZIP&provider=nobody"]
    paths += [f"/jobs/{job_id}" for job_id in job_ids]
    # Some of them: what all of them are made of is looked through in the tables.
    one_of_each = RawMarketData.objects.order_by("provider", "outcome", "status", "id")
    raw_ids = one_of_each.distinct("provider", "outcome", "status").values_list("id", flat=True)
    paths += [f"/raw/{raw_id}" for raw_id in raw_ids]
    paths += [f"/prices/{event_id}" for event_id in PricePoint.objects.values_list("id", flat=True)[:20]]
    with requests.Session() as session:
        for path in paths:
            yield from answer_of(path, session.get(f"http://{address}{path}", timeout=10))
        for path in ("/prices/stop", "/prices/poll"):
            yield from answer_of(path, session.post(f"http://{address}{path}", json={"x": 1}, timeout=10))


def everything_left(folder: Path, topic: str, redis_url: str) -> Iterator[Place]:
    yield from files_below(folder)
    yield from rows_of_all_tables()
    yield from messages_of(
        topic,
        servers=django_settings.KAFKA_BOOTSTRAP_SERVERS,
        count=PricePoint.objects.filter(published_at__isnull=False).count(),
    )
    yield from keys_and_values_of_redis(redis_url)


def quotes_of(path: str) -> set[str]:
    """Return the failures that repeat a key beside a good price."""
    return {name for name in symbols_of(path) if name.endswith("-QUOTE")}


def stored_quotes() -> set[str]:
    return {" ".join(row) for row in PricePoint.objects.values_list("provider", "symbol")}


def stop_the_seen(api: APIClient, running: dict[str, str], server: HostileProviders) -> bool:
    """Stop the jobs whose failure has been provoked, and tell whether that is all of them."""
    for name in running.keys() & server.echoed.keys():
        answer = api.post("/prices/stop", {"job_id": running.pop(name)}, format="json")
        assert answer.status_code == 200
    return not running


def nothing_under_way() -> bool:
    points = set(PricePoint.objects.values_list("id", flat=True))
    averaged = points == set(SymbolAverage.objects.values_list("event_id", flat=True))
    return averaged and not PollRun.objects.filter(state="claimed").exists()


def test_canary_is_nowhere(
    api: APIClient,
    product: Product,
    server: HostileProviders,
    topic: str,
    tmp_path: Path,
    admin_client: Client,
) -> None:
    redis_url = product.redis_url
    with never_held(redis_url):
        product.start(*PROCESSES)
        job_ids = create_jobs(api)
        wait_until(lambda: product.is_healthy("web"))
        with ThreadPoolExecutor(1) as pool:
            latest = pool.submit(latest_of_all, product.address, server)
            running = dict(job_ids)
            wait_until(lambda: stop_the_seen(api, running, server), timeout_s=120, what="each job's failure")
            places = latest.result()
        assert symbols_of("LATEST").keys() <= server.echoed.keys()
        wait_until(nothing_under_way, what="the end of all polls and all averages")
        places += answers_of_rest(product.address, list(job_ids.values())[::10])
        ended = product.stop_all()
    assert quotes_of("JOB") | quotes_of("LATEST") <= stored_quotes()
    assert server.repeated == set(SECRETS)
    assert set(PricePoint.objects.values_list("price", flat=True)) == {Decimal(PRICE)}
    places += [*everything_left(tmp_path, topic, redis_url), *admin_pages(admin_client)]
    assert find(SECRETS, places) == []
    assert set(ended.values()) == {0}
