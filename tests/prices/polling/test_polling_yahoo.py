"""Polls of Yahoo with the default budget: what a slot costs, and what it leaves undone."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
import redis
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from rest_framework.test import APIClient
from werkzeug import Request, Response

from prices.jobs.services import stop_job
from prices.models import PollJob, PollRun, RawMarketData, RunState
from prices.quota import QuotaPlan, plan_of
from providers.adapters.yahoo import session as yahoo_session
from providers.adapters.yahoo.batches import asks_singly
from providers.rate_limits.budget import remaining
from providers.rate_limits.redis_scripts import key_base
from providers.registry import get_provider
from providers.warm_up import warm_up
from tests.conftest import MakeJob
from tests.polling import poll_job
from tests.providers.yahoo_bodies import INVALID_CRUMB, ROW, chart_body, quote_body
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.now(UTC)


@pytest.fixture
def yahoo(settings: Settings) -> Iterator[HTTPServer]:
    """Yield a server that plays Yahoo's hosts, but for the quotes; it answers at once."""
    yahoo_session.forget_clients()
    with HTTPServer(threaded=True) as server:
        settings.YAHOO_BASE_URL = server.url_for("").rstrip("/")
        server.expect_request("/").respond_with_data("", headers={"Set-Cookie": "A3=x"})
        server.expect_request("/v1/test/getcrumb").respond_with_data("crumb")
        yield server
    yahoo_session.forget_clients()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def paths(server: HTTPServer) -> list[str]:
    return [request.path for request, _ in server.log]


def test_jobs_of_several_symbols_cost_what_is_planned(
    make_job: MakeJob, yahoo: HTTPServer, topic: str
) -> None:
    lists = [["AAPL", "IBM", "KO", "MSFT"], ["NVDA", "ORCL", "PEP", "XOM"]]
    rows = ({**ROW, "symbol": symbol} for symbol in lists[0] + lists[1])
    yahoo.expect_request("/v7/finance/quote").respond_with_json(quote_body(*rows))
    started = time.monotonic()
    for symbols in lists:
        assert len(get_provider("yfinance").plan(symbols)) == 1
        assert poll_job(make_job(symbols, provider="yfinance").id, now=NOW) == RunState.STORED
    assert time.monotonic() - started < 5
    assert paths(yahoo) == ["/", "/v1/test/getcrumb", "/v7/finance/quote", "/v7/finance/quote"]
    assert list(PollRun.objects.values_list("points", flat=True)) == [4, 4]
    by_window = {use.window_s: use.used for use in remaining("yfinance").windows or ()}
    assert by_window[60] == len(yahoo.log)


def refuse_quotes(yahoo: HTTPServer, symbols: list[str]) -> None:
    yahoo.expect_request("/consent").respond_with_data("<html>no form</html>")
    yahoo.expect_request("/v7/finance/quote").respond_with_json(INVALID_CRUMB, status=401)
    for symbol in symbols:
        body = chart_body({**ROW, "symbol": symbol})
        yahoo.expect_request(f"/v8/finance/chart/{symbol}").respond_with_json(body)


def planned(job: PollJob) -> QuotaPlan:
    plan = plan_of(job, now=NOW, fresh=True)
    assert isinstance(plan, QuotaPlan)
    return plan


def test_crumb_that_is_refused_for_ever_costs_one_request_a_symbol(
    make_job: MakeJob, yahoo: HTTPServer, topic: str, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"yfinance": "30/1s,60/1m"}
    first, second, third = ["AAPL", "IBM", "KO"], ["MSFT", "ORCL", "PEP"], ["NVDA", "XOM", "F"]
    refuse_quotes(yahoo, first + second)
    jobs = [make_job(symbols, provider="yfinance", interval=10) for symbols in (first, second, third)]
    before = planned(jobs[1])
    assert before.in_full
    assert poll_job(jobs[0].id, now=NOW) == RunState.STORED
    yahoo.clear_log()
    assert poll_job(jobs[1].id, now=NOW) == RunState.STORED
    assert sorted(paths(yahoo)) == [f"/v8/finance/chart/{symbol}" for symbol in second]
    # What a slot costs now is what the plan counts, and what it shows.
    assert planned(jobs[1]).wanted_per_day == 3 * before.wanted_per_day
    shown = StringIO()
    call_command("quota", provider="yfinance", stdout=shown)
    assert "each symbol takes a request" in shown.getvalue()
    # It is tried again, and works.
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(f"{key_base('yfinance')}:batches")
    wait_until(lambda: not asks_singly("yfinance"))
    yahoo.clear()
    yahoo.expect_request("/").respond_with_data("", headers={"Set-Cookie": "A3=x"})
    yahoo.expect_request("/v1/test/getcrumb").respond_with_data("crumb")
    rows = ({**ROW, "symbol": symbol} for symbol in third)
    yahoo.expect_request("/v7/finance/quote").respond_with_json(quote_body(*rows))
    assert poll_job(jobs[2].id, now=NOW) == RunState.STORED
    assert paths(yahoo) == ["/", "/v1/test/getcrumb", "/v7/finance/quote"]
    assert planned(jobs[1]) == before


def test_first_price_is_there_within_two_seconds(api: APIClient, yahoo: HTTPServer, topic: str) -> None:
    body = chart_body({**ROW, "regularMarketTime": int(NOW.timestamp()) - 5})
    yahoo.expect_request("/v8/finance/chart/AAPL").respond_with_json(body)
    warm_up(["yfinance"])
    started = time.monotonic()
    assert api.get("/prices/latest?symbol=AAPL&provider=yfinance").status_code == 200
    # The budget's second and little else; more where the machine is busy.
    assert time.monotonic() - started < 3.5
    assert paths(yahoo) == ["/", "/v1/test/getcrumb", "/v8/finance/chart/AAPL"]


@pytest.mark.parametrize("symbols", [["AAPL"], ["AAPL", "IBM"]])
def test_no_request_starts_once_a_stop_is_answered(
    make_job: MakeJob, yahoo: HTTPServer, topic: str, symbols: list[str]
) -> None:
    asked_for_cookie = threading.Event()

    def answer_late(_: Request) -> Response:
        asked_for_cookie.set()
        time.sleep(4)
        return Response("", headers={"Set-Cookie": "A3=x"})

    yahoo.clear()
    yahoo.expect_request("/").respond_with_handler(answer_late)
    yahoo.expect_request(re.compile(".*")).respond_with_data("crumb")
    job = make_job(symbols, provider="yfinance")
    poll = in_thread(lambda: poll_job(job.id, now=NOW))
    assert asked_for_cookie.wait(10)
    started = time.monotonic()
    stop_job(job.id)
    assert time.monotonic() - started < 3
    poll.join()
    assert paths(yahoo) == ["/"]
    run = PollRun.objects.get()
    assert (run.state, run.reason) == ("skipped", "not asked: the job was stopped")
    assert not RawMarketData.objects.exists()


def test_no_chart_follows_on_a_refused_quote_once_a_stop_is_answered(
    make_job: MakeJob, yahoo: HTTPServer, topic: str
) -> None:
    job = make_job(["AAPL", "IBM"], provider="yfinance")

    def refuse(_: Request) -> Response:
        stop_in_thread = in_thread(lambda: stop_job(job.id))
        stop_in_thread.join()
        return Response("Too Many Requests", status=429)

    yahoo.expect_request("/v7/finance/quote").respond_with_handler(refuse)
    poll_job(job.id, now=NOW)
    assert paths(yahoo) == ["/", "/v1/test/getcrumb", "/v7/finance/quote"]
