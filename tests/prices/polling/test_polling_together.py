"""Jobs that are due together, at a provider that counts its requests."""

import threading
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from prices.ledger.grid import phase_of, slot_at
from prices.ledger.runs import active_jobs
from prices.models import PollJob, PollRun, PricePoint, RawMarketData, RunState
from prices.polling.handover import take_over, to_message
from prices.polling.poll import Polled, claim_and_poll
from providers.rate_limits import symbol_leases
from providers.rate_limits.symbol_leases import Lease
from tests.conftest import MakeJob
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime.now(UTC)
FIFTY = [f"S{number}" for number in range(50)]
UNKNOWN = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


def quote() -> str:
    return f'{{"c":150.25,"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":{int(datetime.now(UTC).timestamp())}}}'


def chart(symbol: str) -> str:
    seconds = int(datetime.now(UTC).timestamp())
    meta = f'{{"symbol":"{symbol}","currency":"USD","regularMarketPrice":1.5,"regularMarketTime":{seconds}}}'
    return f'{{"chart":{{"result":[{{"meta":{meta}}}],"error":null}}}}'


@pytest.fixture
def finnhub(settings: Settings, httpserver: HTTPServer, topic: str) -> HTTPServer:
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.YAHOO_BASE_URL = settings.FINNHUB_BASE_URL
    settings.FINNHUB_API_KEY = "canary-key-123456"
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1000/1s", "yfinance": "1000/1s"}
    return httpserver


def asked_for(server: HTTPServer) -> Counter[str]:
    return Counter(request.args["symbol"] for request, _ in server.log if "symbol" in request.args)


def states() -> Counter[str]:
    return Counter(PollRun.objects.values_list("state", flat=True))


def in_thread(job_ids: list[uuid.UUID], now: datetime) -> threading.Thread:
    def poll() -> None:
        try:
            claim_and_poll(job_ids, now=now)
        finally:
            connection.close()

    thread = threading.Thread(target=poll)
    thread.start()
    return thread


def test_ten_jobs_of_fifty_symbols_cost_the_requests_of_one(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    jobs = [make_job(FIFTY, interval=60, provider="finnhub") for _ in range(10)]
    claim_and_poll([job.id for job in jobs], now=NOW)
    assert asked_for(finnhub) == Counter(FIFTY)
    assert PricePoint.objects.count() == RawMarketData.objects.count() == 50
    assert states() == {"stored": 1, "shared": 9}
    assert set(PollRun.objects.values_list("points", flat=True)) == {50}
    assert not PollJob.objects.filter(last_success_at=None).exists()


def test_jobs_polled_at_once_by_several_workers_share_their_requests(
    finnhub: HTTPServer, make_job: MakeJob
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    jobs = [make_job(FIFTY[:10], interval=60, provider="finnhub") for _ in range(4)]
    threads = [in_thread([job.id], NOW) for job in jobs]
    for thread in threads:
        thread.join()
    assert asked_for(finnhub) == Counter(FIFTY[:10])
    assert sum(states().values()) == states()["stored"] + states()["shared"] == 4


def test_young_price_answers_a_slot_and_an_old_one_does_not(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    claim_and_poll([make_job(["AAPL"], interval=60, provider="finnhub").id], now=NOW)
    often = make_job(["AAPL"], interval=4, provider="finnhub")
    PricePoint.objects.update(received_at=datetime.now(UTC) - timedelta(seconds=2))
    seldom = make_job(["AAPL", "MSFT"], interval=20, provider="finnhub")
    polled = claim_and_poll([seldom.id], now=NOW)
    assert polled.states == {seldom.id: "stored"}
    assert asked_for(finnhub) == {"AAPL": 1, "MSFT": 1}
    assert claim_and_poll([often.id], now=NOW).states == {often.id: "stored"}
    assert asked_for(finnhub) == {"AAPL": 2, "MSFT": 1}


def test_slot_answered_by_young_prices_alone_is_shared(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    claim_and_poll([make_job(["AAPL"], interval=60, provider="finnhub").id], now=NOW)
    again = make_job(["AAPL"], interval=30, provider="finnhub")
    assert claim_and_poll([again.id], now=NOW).states == {again.id: "shared"}
    again.refresh_from_db()
    assert again.last_success_at is not None


def test_poll_waits_for_what_others_ask_for_and_asks_itself_where_they_die(
    finnhub: HTTPServer, make_job: MakeJob
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    other = Lease("finnhub")
    other.take(["AAPL"])
    job = make_job(["AAPL", "MSFT"], interval=60, provider="finnhub")
    thread = in_thread([job.id], NOW)
    wait_until(lambda: PricePoint.objects.filter(symbol="MSFT").exists())
    assert asked_for(finnhub) == {"MSFT": 1}
    other.release(["AAPL"])
    thread.join()
    assert asked_for(finnhub) == {"MSFT": 1, "AAPL": 1}
    assert states() == {"stored": 1}


def test_bad_symbol_of_one_job_costs_the_others_nothing(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote", query_string="symbol=NOPE").respond_with_data(UNKNOWN)
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    good = make_job(["AAPL"], interval=60, provider="finnhub")
    bad = make_job(["NOPE"], interval=60, provider="finnhub")
    polled = claim_and_poll([good.id, bad.id], now=NOW)
    assert polled.states == {good.id: "stored", bad.id: "failed"}


def test_unknown_symbol_is_not_asked_for_again_at_once(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(UNKNOWN)
    job = make_job(["NOPE"], provider="finnhub")
    for second in range(3):
        claim_and_poll([job.id], now=NOW + timedelta(seconds=second))
    assert asked_for(finnhub) == {"NOPE": 1}
    assert states() == {"failed": 1, "skipped": 2}


def test_symbol_that_had_a_price_lately_is_asked_for_again(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_oneshot_request("/api/v1/quote").respond_with_data(quote())
    finnhub.expect_request("/api/v1/quote").respond_with_data(UNKNOWN)
    job = make_job(["AAPL"], provider="finnhub")
    for second in range(3):
        claim_and_poll([job.id], now=NOW + timedelta(seconds=second * 2))
        PricePoint.objects.update(received_at=datetime.now(UTC) - timedelta(seconds=9))
    assert asked_for(finnhub) == {"AAPL": 3}


def test_answers_are_stored_while_others_are_still_to_come(finnhub: HTTPServer, make_job: MakeJob) -> None:
    release = threading.Event()

    def hang(_request: Request) -> Response:
        release.wait(10)
        return Response(quote())

    for _ in range(2):
        finnhub.expect_ordered_request("/api/v1/quote").respond_with_data(quote())
    finnhub.expect_ordered_request("/api/v1/quote").respond_with_handler(hang)
    job = make_job(["A", "B", "C"], interval=60, provider="finnhub")
    thread = in_thread([job.id], NOW)
    wait_until(lambda: PricePoint.objects.filter(published_at__isnull=False).count() == 2)
    assert states() == {"claimed": 1}
    release.set()
    thread.join()
    assert states() == {"stored": 1}


def go_on(polled: Polled) -> Polled:
    ((provider, slots),) = polled.go_on.items()
    return take_over(provider, [to_message(slot) for slot in slots])


def test_job_without_provider_goes_on_at_the_next_and_stays_there(
    finnhub: HTTPServer, make_job: MakeJob
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    finnhub.expect_request("/v8/finance/chart/AAPL").respond_with_data(chart("AAPL"))
    job = make_job(["AAPL"], interval=60, provider=None)
    polled = claim_and_poll([job.id], now=NOW)
    assert (polled.states, list(polled.go_on)) == ({}, ["yfinance"])
    assert go_on(polled).states == {job.id: "stored"}
    job.refresh_from_db()
    assert job.served_by == "yfinance"
    requests = len(asked_for(finnhub))
    PricePoint.objects.update(received_at=datetime.now(UTC) - timedelta(seconds=9))
    polled = claim_and_poll([job.id], now=NOW + timedelta(seconds=60), at="finnhub")
    assert go_on(polled).states == {job.id: "stored"}
    assert len(asked_for(finnhub)) == requests
    assert set(PricePoint.objects.values_list("provider", flat=True)) == {"yfinance"}


def test_symbol_that_one_provider_does_not_know_comes_from_the_next(
    finnhub: HTTPServer, make_job: MakeJob
) -> None:
    finnhub.expect_request("/api/v1/quote", query_string="symbol=AAPL").respond_with_data(quote())
    finnhub.expect_request("/api/v1/quote").respond_with_data(UNKNOWN)
    finnhub.expect_request("/v8/finance/chart/BMW.DE").respond_with_data(chart("BMW.DE"))
    job = make_job(["AAPL", "BMW.DE"], interval=60, provider=None)
    assert go_on(claim_and_poll([job.id], now=NOW)).states == {job.id: "stored"}
    assert PollRun.objects.get().points == 2
    job.refresh_from_db()
    assert (job.served_by, job.last_error) == ("finnhub", "")
    found = dict(PricePoint.objects.values_list("symbol", "provider"))
    assert found == {"AAPL": "finnhub", "BMW.DE": "yfinance"}


def test_job_that_nobody_serves_tells_what_each_said(
    finnhub: HTTPServer, make_job: MakeJob, settings: Settings
) -> None:
    settings.PROVIDER_ORDER = ["finnhub", "yfinance"]
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    finnhub.expect_request("/v8/finance/chart/AAPL").respond_with_data("down", status=500)
    job = make_job(["AAPL"], interval=60, provider=None)
    assert go_on(claim_and_poll([job.id], now=NOW)).states == {job.id: "failed"}
    reason = PollRun.objects.get().reason
    assert reason.startswith("AAPL: finnhub: ")
    assert "; yfinance: " in reason


def test_named_provider_never_falls_back(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    job = make_job(["AAPL"], interval=60, provider="finnhub")
    polled = claim_and_poll([job.id], now=NOW)
    assert (polled.states, polled.go_on) == ({job.id: "failed"}, {})


def test_symbol_that_a_killed_process_asked_for_is_asked_for_again(
    finnhub: HTTPServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Its lease is no fault of the provider: the job stays there."""
    settings.PROVIDER_TIMEOUT_S = 6
    monkeypatch.setattr(symbol_leases, "STORED_WITHIN_S", 2.0)
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    Lease("finnhub").take(["AAPL"])
    job = make_job(["AAPL"], interval=60, provider=None)
    assert claim_and_poll([job.id], now=NOW) == Polled({job.id: RunState.STORED}, {})
    job.refresh_from_db()
    assert job.served_by == "finnhub"


def test_symbol_that_another_process_asks_for_too_long_is_said_so(
    finnhub: HTTPServer, make_job: MakeJob, settings: Settings
) -> None:
    settings.POLL_DEADLINE_S = 2
    Lease("finnhub").take(["AAPL"])
    job = make_job(["AAPL"], interval=60, provider=None)
    assert claim_and_poll([job.id], now=NOW) == Polled({job.id: RunState.SKIPPED}, {})
    reason = PollRun.objects.get().reason
    assert reason == "not asked: another process's request for it has not ended"


def test_symbol_that_postgresql_kept_from_asking_is_alone_in_that(
    finnhub: HTTPServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for in the next slot, at the same provider."""
    answers = iter([OperationalError("the connection was lost")])

    def away_once(job_ids: list[uuid.UUID]) -> set[uuid.UUID]:
        for error in answers:
            raise error
        return active_jobs(job_ids)

    monkeypatch.setattr("prices.polling.poll.active_jobs", away_once)
    finnhub.expect_request("/api/v1/quote", query_string="symbol=MSFT").respond_with_data("down", status=500)
    finnhub.expect_request("/api/v1/quote").respond_with_data(quote())
    job = make_job(["AAPL", "MSFT", "GOOG"], interval=60, provider="finnhub")
    assert claim_and_poll([job.id], now=NOW) == Polled({job.id: RunState.STORED}, {})
    run = PollRun.objects.get()
    assert "not asked: PostgreSQL cannot be reached" in run.reason
    assert run.reason.count("PostgreSQL") == 1
    assert run.points == 1 + (not asked_for(finnhub)["MSFT"])


def test_slot_handed_over_after_its_job_was_stopped_asks_nobody(
    finnhub: HTTPServer, make_job: MakeJob
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    job = make_job(["AAPL"], interval=60, provider=None)
    polled = claim_and_poll([job.id], now=NOW)
    PollJob.objects.update(status="stopped")
    assert go_on(polled).states == {job.id: "failed"}
    assert not [request for request, _ in finnhub.log if "chart" in request.path]


def test_slot_handed_over_twice_is_polled_once(finnhub: HTTPServer, make_job: MakeJob) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    finnhub.expect_request("/v8/finance/chart/AAPL").respond_with_data(chart("AAPL"))
    polled = claim_and_poll([make_job(["AAPL"], interval=60, provider=None).id], now=NOW)
    go_on(polled)
    assert go_on(polled).states == {}
    assert PricePoint.objects.count() == 1


def test_equal_jobs_fall_due_together() -> None:
    one, other = (phase_of("finnhub", 60, symbols) for symbols in (FIFTY, FIFTY[::-1]))
    assert slot_at(NOW, 60, one) == slot_at(NOW, 60, other)
