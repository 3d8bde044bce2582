"""Every recorded answer of the providers, from their side to ours: GET /prices/latest, and a job's poll.

A recording is served for the request that the service sends, whichever call it was recorded of.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.test.utils import override_settings
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient
from werkzeug import Request, Response

from prices.api.problems import STATUS_OF_KIND
from prices.latest.single_flight import forget_single_flight
from prices.models import PricePoint, RawMarketData, RunState
from prices.publishing.kafka_clients import make_admin
from prices.publishing.publisher import forget_publisher
from prices.publishing.topic import ensure_topic
from providers.adapters.yahoo import session as yahoo_session
from providers.base import ErrorKind
from providers.registry import PROVIDER_NAMES
from providers.warm_up import warm_up
from tests.conftest import MakeJob
from tests.polling import poll_job
from tests.providers.recordings import FOLDER, WEBSOCKET, Recording, load_recordings

RECORDINGS = load_recordings()
# One for each symbol that an answer tells of: a batch has several.
ITEMS = [
    (recording, symbol, expected)
    for recording in RECORDINGS
    # The sample rows of a refused bulk call: what was asked for stands in one word.
    for symbol, expected in zip(
        (symbol.partition(",")[0] for symbol in recording.symbols), recording.expected, strict=True
    )
]
# Of the wire, or of a body that was packed then and is not now.
NOT_SERVED = {"content-length", "content-encoding", "transfer-encoding", "connection", "date", "server"}

pytestmark = pytest.mark.skipif(not RECORDINGS, reason=f"the recorded answers are not at {FOLDER}")


@pytest.fixture(scope="module", autouse=True)
def _topic() -> Iterator[None]:
    """Make one topic for all: a price of each recording is published."""
    with override_settings(KAFKA_TOPIC=f"recorded-{uuid4().hex[:12]}", KAFKA_PARTITIONS=1):
        ensure_topic(make_admin())
        forget_publisher()
        yield
        forget_publisher()


@pytest.fixture(scope="module", autouse=True)
def _one_crumb() -> Iterator[None]:
    """Let one test take Yahoo's crumb for all: that takes a second of the budget."""
    yahoo_session.forget_clients()
    # As each process does: a poll that imports them first may take longer than one that has just begun.
    warm_up(PROVIDER_NAMES)
    yield
    yahoo_session.forget_clients()


@pytest.fixture(autouse=True)
def _asked_here(settings: Settings, httpserver: HTTPServer) -> Iterator[None]:
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = "canary-key-123456"
    base = httpserver.url_for("").rstrip("/")
    settings.ALPHA_VANTAGE_BASE_URL = settings.FINNHUB_BASE_URL = settings.YAHOO_BASE_URL = base
    forget_single_flight()
    yield
    forget_single_flight()


def serve(server: HTTPServer, recording: Recording) -> None:
    """Answer every request with the recording, save for Yahoo's cookie and crumb."""
    headers = {
        name: value for name, value in recording.meta["headers"].items() if name.lower() not in NOT_SERVED
    }

    def answer(request: Request) -> Response:
        if request.path in {"/query", "/api/v1/quote", "/v7/finance/quote"} or "/chart/" in request.path:
            return Response(recording.body, status=recording.meta["status"], headers=headers)
        return Response("a-crumb", headers={"Set-Cookie": "A3=a-cookie"})

    server.expect_request(re.compile(".*")).respond_with_handler(answer)


def errors_allowed(recording: Recording, expected: dict[str, Any]) -> set[str]:
    # Asked for alone, a symbol that a batch leaves out gets an answer about another symbol.
    of_a_batch = {"malformed"} if len(recording.symbols) > 1 else set()
    return {expected["error"], *expected.get("also_acceptable", [])} | of_a_batch


def digits(price: str) -> str:
    """Return the price as the contract writes it: the provider's digits, no trailing zeros."""
    return re.sub(r"\.?0+$", "", price) if "." in price else price


def assert_time(body: dict[str, Any], expected: dict[str, Any]) -> None:
    if expected.get("as_of_date"):
        assert (body["precision"], body["timestamp"][:10]) == ("day", expected["as_of_date"])
    elif expected["timestamp"] is None:
        assert (body["precision"], body["observed_at"]) == ("unknown", None)
        assert body["timestamp"] == body["received_at"]
        assert body["freshness"] == "unknown"
    else:
        assert (body["precision"], body["timestamp"]) == ("second", expected["timestamp"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("recording", "symbol", "expected"),
    ITEMS,
    ids=[f"{recording.name}-{symbol}" for recording, symbol, _ in ITEMS],
)
def test_latest_answers_as_recorded(
    api: APIClient, httpserver: HTTPServer, recording: Recording, symbol: str, expected: dict[str, Any]
) -> None:
    serve(httpserver, recording)
    query = {"symbol": symbol, "provider": recording.provider, "expand": "quality"}
    answer = api.get("/prices/latest", query)
    body = json.loads(answer.content)
    if expected["kind"] == "error":
        kind = ErrorKind(body["type"].removeprefix("urn:marketdata:").replace("-", "_"))
        assert kind in errors_allowed(recording, expected)
        assert answer.status_code == body["status"] == STATUS_OF_KIND[kind]
        wait = recording.meta["headers"].get("retry-after")
        assert wait is None or answer["Retry-After"] == wait
        assert not PricePoint.objects.exists()
        return
    assert answer.status_code == 200, answer.content
    assert (body["symbol"], body["provider"]) == (expected["symbol"], recording.provider)
    assert f'"price":{digits(expected["price"])},' in answer.content.decode()
    assert body["currency"] == expected.get("currency", body["currency"])
    assert_time(body, expected)
    assert body["freshness"] == "stale" or not expected.get("stale")


@pytest.mark.django_db
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_job_stores_what_was_recorded(
    make_job: MakeJob, httpserver: HTTPServer, recording: Recording
) -> None:
    serve(httpserver, recording)
    symbols = [symbol.partition(",")[0] for symbol in recording.symbols]
    quotes = {item["symbol"]: digits(item["price"]) for item in recording.expected if item["kind"] == "quote"}
    job = make_job(symbols, provider=recording.provider)
    assert poll_job(job.id, now=datetime.now(UTC)) == (RunState.STORED if quotes else RunState.FAILED)
    points = list(PricePoint.objects.filter(provider=recording.provider))
    assert {point.symbol: format(point.price, "f") for point in points} == quotes
    assert len(points) == len(quotes)
    assert all(point.published_at for point in points)
    # One outcome, for it is one answer, however often it was asked for.
    (outcome,) = set(RawMarketData.objects.values_list("outcome", flat=True))
    errors = [item for item in recording.expected if item["kind"] == "error"]
    assert outcome in ({"quote"} if quotes else errors_allowed(recording, errors[0]))
    job.refresh_from_db()
    assert (job.last_error == "") == (not errors)


def test_recordings_of_rest_calls_are_all_served(
    pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    metas = [json.loads(path.read_text()) for path in FOLDER.glob("*/*.meta.json")]
    of_rest = [meta for meta in metas if meta["status"] != WEBSOCKET]
    covered = {recording.name for recording, _, _ in ITEMS}
    with capsys.disabled():
        text = f"{len(covered)} of {len(of_rest)} recordings of REST calls ({len(ITEMS)} symbols)"
        pytestconfig.get_terminal_writer().line(f" {text}; {len(metas) - len(of_rest)} are of websockets")
    assert len(covered) == len(of_rest)
