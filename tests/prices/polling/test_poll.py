import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from redis import Redis as RedisClient
from werkzeug import Request, Response

from prices.database import retry as patience
from prices.fetching import requests as fetching
from prices.jobs.services import pause_job, stop_job
from prices.latest.single_flight import forget_single_flight
from prices.ledger.runs import abandon_overdue_runs, claim_slots
from prices.models import PollJob, PollRun, PricePoint, RawMarketData, RunState
from providers.rate_limits.redis_scripts import keys_of
from tests.conftest import ChangeJob, MakeJob
from tests.polling import poll_job
from tests.prices.one_price import fetch_price

NOW = datetime.now(UTC)


def finnhub_quote(price: str = "150.25") -> str:
    return f'{{"c":{price},"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":{int(NOW.timestamp()) - 5}}}'


@pytest.fixture
def finnhub(settings: Settings, httpserver: HTTPServer) -> Iterator[HTTPServer]:
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.FINNHUB_API_KEY = "canary-key-123456"
    forget_single_flight()
    yield httpserver
    forget_single_flight()


def test_poll_stores_run_raw_answer_points_and_publishes(make_job: MakeJob, topic: str) -> None:
    job = make_job(["SIM-A", "SIM-B"])
    assert poll_job(job.id, now=NOW) == RunState.STORED
    run = PollRun.objects.get()
    assert (run.job_id, run.state, run.points, run.reason) == (job.id, "stored", 2, "")
    raw = RawMarketData.objects.get()
    assert (raw.poll, raw.outcome, raw.symbols) == (run.id, "quote", ["SIM-A", "SIM-B"])
    points = PricePoint.objects.order_by("id")
    assert [point.symbol for point in points] == ["SIM-A", "SIM-B"]
    assert {point.raw for point in points} == {raw.id}
    assert all(point.published_at for point in points)
    job.refresh_from_db()
    assert (job.failures, job.last_error) == (0, "")
    assert job.last_success_at == job.last_run_at is not None


def test_poll_delivered_twice_polls_once(make_job: MakeJob, topic: str) -> None:
    job = make_job()
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert poll_job(job.id, now=NOW) is None
    assert PollRun.objects.count() == PricePoint.objects.count() == 1


def test_poll_at_the_next_slot_polls_again(make_job: MakeJob, topic: str) -> None:
    job = make_job(interval=5)
    poll_job(job.id, now=NOW)
    poll_job(job.id, now=NOW + timedelta(seconds=5))
    runs = PollRun.objects.order_by("id")
    assert runs[1].due_at - runs[0].due_at == timedelta(seconds=5)


@pytest.mark.parametrize("change", [pause_job, stop_job])
def test_poll_of_job_that_does_not_run_claims_nothing(make_job: MakeJob, change: ChangeJob) -> None:
    job = make_job()
    change(job.id)
    assert poll_job(job.id, now=NOW) is None
    assert not PollRun.objects.exists()


def test_poll_of_job_switched_off_by_hand_claims_nothing(make_job: MakeJob) -> None:
    job = make_job()
    job.periodic_task.enabled = False
    job.periodic_task.save()
    assert poll_job(job.id, now=NOW) is None


@pytest.mark.django_db
def test_poll_of_unknown_job_does_nothing() -> None:
    assert poll_job(uuid.uuid4(), now=NOW) is None


def test_poll_without_key_is_skipped_with_the_variable(make_job: MakeJob, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = ""
    job = make_job(["AAPL"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.SKIPPED
    assert PollRun.objects.get().reason == "finnhub: not_configured: set FINNHUB_API_KEY"
    assert not RawMarketData.objects.exists()


def test_poll_that_fails_keeps_the_answer_and_the_reason(
    make_job: MakeJob, finnhub: HTTPServer, topic: str
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("<html>bad gateway</html>", status=502)
    job = make_job(["AAPL"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.FAILED
    answers = {(raw.status, raw.outcome, bytes(raw.body or b"")) for raw in RawMarketData.objects.all()}
    assert answers == {(502, "upstream_error", b"<html>bad gateway</html>")}
    assert PollRun.objects.get().reason.startswith("AAPL: ")
    job.refresh_from_db()
    assert job.failures == 1
    assert job.last_error.startswith("AAPL: ")
    assert poll_job(job.id, now=NOW + timedelta(seconds=1)) == RunState.FAILED
    job.refresh_from_db()
    assert job.failures == 2


def test_poll_with_provider_away_is_recorded_without_status(make_job: MakeJob, settings: Settings) -> None:
    settings.FINNHUB_API_KEY = "canary-key-123456"
    settings.FINNHUB_BASE_URL = "http://127.0.0.1:1"
    assert poll_job(make_job(["AAPL"], provider="finnhub").id, now=NOW) == RunState.FAILED
    raw = RawMarketData.objects.first()
    assert raw is not None
    assert (raw.status, raw.outcome, raw.payload, raw.body) == (None, "upstream_error", None, None)


def test_poll_of_good_and_unknown_symbol_stores_the_good_one(
    make_job: MakeJob, finnhub: HTTPServer, topic: str
) -> None:
    unknown = json.dumps({"c": 0, "d": None, "dp": None, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 0})
    finnhub.expect_request("/api/v1/quote", query_string="symbol=AAPL").respond_with_data(finnhub_quote())
    finnhub.expect_request("/api/v1/quote", query_string="symbol=NOPE").respond_with_data(unknown)
    job = make_job(["AAPL", "NOPE"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert PricePoint.objects.get().price == Decimal("150.25")
    run = PollRun.objects.get()
    assert (run.points, run.reason.partition(":")[0]) == (1, "NOPE")
    assert RawMarketData.objects.count() == 2


def test_poll_rate_limited_asks_no_further(make_job: MakeJob, finnhub: HTTPServer) -> None:
    limited = json.dumps({"error": "API limit reached. Please try again later."})
    finnhub.expect_request("/api/v1/quote").respond_with_data(limited, status=429)
    poll_job(make_job(["AAPL", "MSFT", "IBM"], provider="finnhub").id, now=NOW)
    assert len(finnhub.log) == 1
    symbols, _, reason = PollRun.objects.get().reason.partition(": ")
    assert sorted(symbols.split(", ")) == ["AAPL", "IBM", "MSFT"]
    assert reason == "finnhub: the limit of requests is reached"


@pytest.mark.django_db(transaction=True)
def test_poll_stopped_between_requests_asks_no_further(
    make_job: MakeJob, finnhub: HTTPServer, topic: str
) -> None:
    job = make_job(["AAPL", "MSFT"], provider="finnhub")

    def answer_and_stop(_request: Request) -> Response:
        PollJob.objects.update(status="stopped")
        connection.close()
        return Response(finnhub_quote())

    finnhub.expect_request("/api/v1/quote").respond_with_handler(answer_and_stop)
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert len(finnhub.log) == 1
    assert PollRun.objects.get().reason.partition(": ")[2] == "not asked: the job was stopped"


def test_claims_past_the_deadline_become_abandoned(make_job: MakeJob, settings: Settings) -> None:
    settings.POLL_DEADLINE_S = 60
    job = make_job()
    claim_slots([job.id], now=NOW)
    started_at = PollRun.objects.get().started_at
    assert abandon_overdue_runs(now=started_at + timedelta(seconds=59)) == 0
    assert abandon_overdue_runs(now=started_at + timedelta(seconds=61)) == 1
    run = PollRun.objects.get()
    assert (run.state, run.reason) == ("abandoned", "the worker ended before the poll did")
    assert poll_job(job.id, now=NOW) is None


@pytest.mark.django_db(transaction=True)
def test_poll_whose_connection_breaks_between_requests_goes_on(
    make_job: MakeJob, finnhub: HTTPServer, topic: str
) -> None:
    job = make_job(["AAPL", "MSFT"], provider="finnhub")

    def answer_and_cut(_request: Request) -> Response:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        connection.close()
        return Response(finnhub_quote())

    finnhub.expect_request("/api/v1/quote").respond_with_handler(answer_and_cut)
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert sorted(PricePoint.objects.values_list("symbol", flat=True)) == ["AAPL", "MSFT"]


# Ends the connection that writes, the first time only: a sequence is not rolled back.
CUT_ONCE = """
CREATE SEQUENCE cuts;
CREATE FUNCTION cut_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('cuts') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
  RETURN NULL;
END $$;
"""
CUTS = {
    "at-the-answer": "TRIGGER cut AFTER INSERT ON raw_market_data FOR EACH STATEMENT",
    "at-the-price": "TRIGGER cut AFTER INSERT ON price_points FOR EACH STATEMENT",
    "at-the-outcome": "TRIGGER cut AFTER UPDATE ON poll_runs FOR EACH STATEMENT",
    "at-the-publication": "TRIGGER cut AFTER UPDATE ON price_points FOR EACH STATEMENT",
    "at-the-commit": "CONSTRAINT TRIGGER cut AFTER INSERT ON price_points INITIALLY DEFERRED FOR EACH ROW",
}


@pytest.fixture(params=CUTS.values(), ids=list(CUTS))
def cut(
    request: pytest.FixtureRequest, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setattr(patience, "RETRY_S", 0.01)
    with connection.cursor() as cursor:
        cursor.execute(f"{CUT_ONCE} CREATE {request.param} EXECUTE FUNCTION cut_once()")
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value FROM cuts")
        (times,) = cursor.fetchone()
        cursor.execute("DROP FUNCTION cut_once CASCADE; DROP SEQUENCE cuts")
    assert times > 1, "it was not cut, or not tried again"


@pytest.mark.usefixtures("cut")
def test_poll_whose_connection_breaks_while_it_stores_stores_once(
    make_job: MakeJob, finnhub: HTTPServer, topic: str
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    job = make_job(["AAPL"], provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert len(finnhub.log) == 1
    run, raw, point = PollRun.objects.get(), RawMarketData.objects.get(), PricePoint.objects.get()
    assert (run.state, run.points, run.reason) == ("stored", 1, "")
    assert (raw.poll, point.raw) == (run.id, raw.id)
    assert point.published_at is not None
    job.refresh_from_db()
    assert (job.failures, job.last_error) == (0, "")


@pytest.mark.django_db(transaction=True)
def test_claims_and_stops_beside_polls_never_deadlock(make_job: MakeJob, topic: str) -> None:
    errors: list[Exception] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except OperationalError as error:
            errors.append(error)
        finally:
            connection.close()

    for second in range(10):
        job = make_job()
        now = NOW + timedelta(seconds=second)
        works: list[Callable[[], object]] = [partial(poll_job, job.id, now=now)] * 5
        works.append(partial(stop_job, job.id))
        threads = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


@pytest.mark.django_db(transaction=True)
def test_poll_beyond_the_budget_is_skipped_with_the_reason(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings, topic: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "2/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    for symbol in ("AAPL", "MSFT"):
        fetch_price("finnhub", symbol)
    job = make_job(["IBM"], interval=60, provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.SKIPPED
    assert PollRun.objects.get().reason == "finnhub: budget: used up (2 requests a minute)"
    assert len(finnhub.log) == 2


@pytest.mark.django_db(transaction=True)
def test_poll_whose_budget_ends_half_way_keeps_what_came(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings, topic: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "2/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    fetch_price("finnhub", "IBM")
    job = make_job(["AAPL", "MSFT"], interval=60, provider="finnhub")
    assert poll_job(job.id, now=NOW) == RunState.STORED
    assert PollRun.objects.get().reason.partition(": ")[2] == "finnhub: budget: used up (2 requests a minute)"


@pytest.mark.django_db(transaction=True)
def test_poll_at_a_pace_by_the_second_waits_for_it(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings, topic: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/300ms"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    assert poll_job(make_job(["AAPL", "MSFT", "IBM"], provider="finnhub").id, now=NOW) == RunState.STORED
    assert PollRun.objects.get().points == 3


@pytest.mark.django_db(transaction=True)
def test_poll_waits_for_room_for_three_quarters_of_its_interval(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A window of moments stands for one that is too long to be waited for in any case.
    monkeypatch.setattr(fetching, "WORTH_WAITING_S", 0.0)
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/1500ms"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    poll_job(make_job(["AAPL", "MSFT"], interval=10, provider="finnhub").id, now=NOW)
    assert PollRun.objects.get().points == 2


@pytest.mark.django_db(transaction=True)
def test_poll_waits_for_no_room_that_comes_when_its_next_slot_is_near(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings, topic: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "2/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    fetch_price("finnhub", "IBM")
    started = time.monotonic()
    poll_job(make_job(["AAPL", "MSFT"], interval=60, provider="finnhub").id, now=NOW)
    run = PollRun.objects.get()
    assert run.points == 1
    # They are fetched at the same time, and either may come first.
    assert run.reason.partition(": ")[0] in ("AAPL", "MSFT")
    assert run.reason.partition(": ")[2] == "finnhub: budget: used up (2 requests a minute)"
    assert time.monotonic() - started < 30


@pytest.mark.django_db(transaction=True)
def test_poll_without_redis_sends_nothing_and_says_why(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    assert poll_job(make_job(["AAPL"], provider="finnhub").id, now=NOW) == RunState.SKIPPED
    assert PollRun.objects.get().reason == "finnhub: budget unavailable: Redis cannot be reached"
    assert finnhub.log == []


@pytest.mark.django_db(transaction=True)
def test_counts_that_redis_lost_are_taken_from_what_was_stored(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings, topic: str, own_counts: RedisClient
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"finnhub": "1/1m"}
    finnhub.expect_request("/api/v1/quote").respond_with_data(finnhub_quote())
    poll_job(make_job(["AAPL"], provider="finnhub").id, now=NOW)
    own_counts.delete(*keys_of("finnhub"))
    assert poll_job(make_job(["MSFT"], provider="finnhub").id, now=NOW) == RunState.SKIPPED
    assert len(finnhub.log) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("long_cooldown")
def test_provider_that_fails_again_and_again_is_left_alone(
    make_job: MakeJob, finnhub: HTTPServer, settings: Settings
) -> None:
    finnhub.expect_request("/api/v1/quote").respond_with_data("down", status=503)
    job = make_job(["AAPL"], provider="finnhub")
    states = [poll_job(job.id, now=NOW + timedelta(seconds=second)) for second in range(7)]
    assert states == [RunState.FAILED] * 2 + [RunState.SKIPPED] * 5
    assert len(finnhub.log) == 5


@pytest.mark.django_db(transaction=True)
def test_poll_that_postgresql_kept_from_asking_says_so(
    make_job: MakeJob, finnhub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_ids: object) -> set[uuid.UUID]:
        raise OperationalError("the connection was lost")

    monkeypatch.setattr("prices.polling.poll.active_jobs", away)
    job = make_job(["AAPL"], provider="finnhub")
    poll_job(job.id, now=NOW)
    assert PollRun.objects.get().reason == "not asked: PostgreSQL cannot be reached"
    assert not finnhub.log
