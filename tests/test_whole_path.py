"""From a job to its averages, by the real processes on the real parts, with some of them killed."""

import json
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db.models import Count, QuerySet
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient
from werkzeug import Request, Response

from dev.pytest_services import Services
from prices.models import PollRun, PricePoint, SymbolAverage
from tests.product import Product
from tests.waiting import wait_until

RECORDINGS = Path(django_settings.BASE_DIR).parent / "shared" / "provider_responses"
REAL_POLLERS = ["poller-alpha-vantage", "poller-finnhub", "poller-yfinance"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def product(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path, OUTBOX_SWEEP_AFTER_S="1")
    yield running
    running.close()


def create_job(api: APIClient, **body: object) -> UUID:
    answer = api.post("/prices/poll", body, format="json")
    assert answer.status_code == 202, answer.content
    return UUID(answer.json()["job_id"])


def stop_job(api: APIClient, job_id: UUID) -> None:
    assert api.post("/prices/stop", {"job_id": str(job_id)}, format="json").status_code == 200


def all_averaged() -> bool:
    points = set(PricePoint.objects.values_list("id", flat=True))
    return points == set(SymbolAverage.objects.values_list("event_id", flat=True))


def stored(count: int) -> bool:
    return PricePoint.objects.count() >= count


def test_killed_worker_and_consumer_lose_nothing_and_double_nothing(api: APIClient, product: Product) -> None:
    product.start("poller-simulated", "maintenance", "beat", "consumer")
    job_id = create_job(api, symbols=["SIM-A", "SIM-B", "SIM-C"], interval=1)
    wait_until(lambda: SymbolAverage.objects.count() >= 6)
    product.kill("poller-simulated")
    product.kill("consumer")
    product.start("poller-simulated")
    before = PricePoint.objects.count()
    wait_until(lambda: stored(before + 9))
    product.start("consumer")
    wait_until(lambda: SymbolAverage.objects.filter(average__isnull=False).count() >= 6)
    stop_job(api, job_id)
    wait_until(all_averaged)
    assert product.stop("consumer") == 0
    assert product.stop("poller-simulated") == 0
    call_command("verify_averages")
    points_of_runs = PricePoint.objects.values("raw").annotate(points=Count("id"))
    assert {row["points"] for row in points_of_runs} == {3}
    assert PollRun.objects.filter(state="stored").count() == len(points_of_runs)


def test_average_altered_by_hand_is_named(
    api: APIClient, product: Product, capsys: pytest.CaptureFixture[str]
) -> None:
    product.start("poller-simulated", "maintenance", "beat", "consumer")
    job_id = create_job(api, symbols=["SIM-A"], interval=1)
    wait_until(lambda: SymbolAverage.objects.filter(average__isnull=False).exists())
    stop_job(api, job_id)
    wait_until(all_averaged)
    rows = list(SymbolAverage.objects.order_by("event_id")[:5])
    assert [row.average for row in rows[:4]] == [None] * 4
    assert rows[4].average == sum((row.price for row in rows), Decimal()) / 5
    SymbolAverage.objects.filter(pk=rows[4].pk).update(average=Decimal(1))
    capsys.readouterr()
    with pytest.raises(CommandError) as caught:
        call_command("verify_averages")
    assert caught.value.returncode == 1
    printed = capsys.readouterr()
    assert str(rows[4].pk) in printed.out + printed.err + str(caught.value)


def test_kafka_away_delays_publishing_and_not_polling(
    api: APIClient, product: Product, services: Services
) -> None:
    product.start("poller-simulated", "maintenance", "beat", "consumer")
    job_id = create_job(api, symbols=["SIM-A"], interval=1)
    wait_until(lambda: SymbolAverage.objects.count() >= 2)
    services.kafka.stop()
    before = PricePoint.objects.count()
    wait_until(lambda: stored(before + 5))
    services.kafka.start()
    stop_job(api, job_id)
    wait_until(lambda: not PricePoint.objects.filter(published_at=None).exists())
    wait_until(all_averaged)
    slots = sorted(PollRun.objects.values_list("due_at", flat=True))
    # A loaded machine may cost a slot or two; waiting for Kafka would cost five.
    assert max((later - slot).total_seconds() for slot, later in pairwise(slots)) <= 3
    call_command("verify_averages")


def serve_recording(server: HTTPServer, path: str, query: str | None, recording: str) -> Decimal:
    folder = RECORDINGS / Path(recording).parent
    meta = json.loads((folder / f"{Path(recording).stem}.meta.json").read_text())
    body = (folder / meta["body_file"]).read_bytes()
    server.expect_request(path, query_string=query).respond_with_data(body, status=meta["status"])
    return Decimal(str(meta["expected"]["price"]))


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="no recorded provider answers beside the project")
def test_recorded_answers_of_every_provider_are_averaged(
    api: APIClient, transactional_db: None, topic: str, tmp_path: Path, httpserver: HTTPServer
) -> None:
    expected = {
        ("alpha_vantage", "IBM"): serve_recording(
            httpserver, "/query", None, "alpha_vantage/quote_IBM_2020.json"
        ),
        ("finnhub", "AAPL"): serve_recording(
            httpserver, "/api/v1/quote", "symbol=AAPL", "finnhub/quote_AAPL_2026-07.json"
        ),
        ("yfinance", "QQQ"): serve_recording(
            httpserver, "/v8/finance/chart/QQQ", None, "yahoo/chart_QQQ.json"
        ),
    }
    httpserver.expect_request("/").respond_with_data("", headers={"Set-Cookie": "A3=x"})
    httpserver.expect_request("/v1/test/getcrumb").respond_with_data("crumb")
    base = httpserver.url_for("").rstrip("/")
    product = Product(
        tmp_path,
        ALPHA_VANTAGE_API_KEY="canary-key-123456",
        FINNHUB_API_KEY="canary-key-654321",
        ALPHA_VANTAGE_BASE_URL=base,
        FINNHUB_BASE_URL=base,
        YAHOO_BASE_URL=base,
        # Five polls within seconds: its plan has 25 in a day.
        ALPHA_VANTAGE_BUDGET="none",
    )
    try:
        product.start(*REAL_POLLERS, "maintenance", "beat", "consumer")
        for provider, symbol in expected:
            create_job(api, symbols=[symbol], interval=1, provider=provider)
        wait_until(
            lambda: (
                SymbolAverage.objects.filter(average__isnull=False).values("symbol").distinct().count() == 3
            ),
            timeout_s=60,
        )
    finally:
        product.close()
    for (provider, symbol), price in expected.items():
        rows = SymbolAverage.objects.filter(symbol=symbol, provider=provider, average__isnull=False)
        assert {(row.price, row.average) for row in rows} == {(price, price)}


def test_every_process_starts_beats_and_ends_when_asked(product: Product) -> None:
    names = product.names
    product.start(*names)
    wait_until(lambda: all(product.is_healthy(name) for name in names))
    assert {name: product.stop(name) for name in names} == dict.fromkeys(names, 0)


@pytest.fixture
def threaded_server() -> Iterator[HTTPServer]:
    """Yield a server that answers other requests while one hangs."""
    with HTTPServer(threaded=True) as server:
        yield server


def test_provider_that_hangs_delays_only_its_own_jobs(
    api: APIClient, transactional_db: None, topic: str, tmp_path: Path, threaded_server: HTTPServer
) -> None:
    release = threading.Event()

    def hang(_request: Request) -> Response:
        release.wait(60)
        return Response(status=503)

    quote = {"c": 150.25, "d": 1, "dp": 1, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 1_795_000_000}
    threaded_server.expect_request("/api/v1/quote").respond_with_json(quote)
    # Yahoo, from its cookie on: the library waits for that without a time-out, and holds a lock meanwhile.
    threaded_server.expect_request(re.compile("^/(v1/.*|v8/.*)?$")).respond_with_handler(hang)
    base = threaded_server.url_for("").rstrip("/")
    product = Product(
        tmp_path,
        YAHOO_BASE_URL=base,
        FINNHUB_BASE_URL=base,
        FINNHUB_API_KEY="canary-key-654321",
    )
    try:
        product.start("poller-yfinance", "poller-finnhub", "poller-simulated", "beat")
        for number in range(10):
            create_job(api, symbols=[f"S{number}"], interval=1, provider="yfinance")
        wait_until(lambda: PollRun.objects.filter(state="claimed").count() >= 4)
        others = [
            create_job(api, symbols=["SIM-A"], interval=1),
            create_job(api, symbols=["AAPL"], interval=1, provider="finnhub"),
        ]
        wait_until(lambda: all(slots_of(job_id).count() >= 5 for job_id in others))
    finally:
        release.set()
        product.close()
    for job_id in others:
        slots = sorted(slots_of(job_id))
        # A loaded machine may cost a slot or two; waiting for the one that hangs would cost sixty.
        assert (slots[-1] - slots[0]).total_seconds() <= len(slots) + 1


def slots_of(job_id: UUID) -> QuerySet[PollRun, datetime]:
    return PollRun.objects.filter(job=job_id, state="stored").values_list("due_at", flat=True)


@pytest.mark.soak
def test_workers_outlive_restarts_of_redis(
    api: APIClient, transactional_db: None, topic: str, tmp_path: Path, services: Services
) -> None:
    names = ("poller-simulated", "maintenance", "beat")
    product = Product(tmp_path)
    try:
        product.start(*names)
        for number in range(40):
            create_job(api, symbols=[f"SIM-{number}-{place}" for place in range(60)], interval=1)
        for _ in range(10):
            services.valkey.stop()
            services.valkey.start()
            # Under load: messages lie in the worker's hands when Redis goes away.
            start = PollRun.objects.count()
            wait_until(lambda: PollRun.objects.count() > start + 100)  # noqa: B023
        assert {product.exit_code(name) for name in names} == {None}
    finally:
        product.close()
