"""The road to Yahoo: cookie, crumb, deadline, and a second way; a local server plays all its hosts."""

import gzip
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Request as HttpRequest
from werkzeug import Response

from providers.adapters.yahoo import session as yahoo_session
from providers.adapters.yahoo.adapter import Yahoo
from providers.base import ErrorKind, ProviderError, ProviderTimeoutError, RawAnswer, Request
from providers.rate_limits.outgoing import Outgoing, sending
from providers.rate_limits.permits import report_outcome
from tests.providers.answers import kind_of, quote_of
from tests.providers.raw_server import drip, raw_server
from tests.providers.shared_scope import granted_soon, quote
from tests.providers.yahoo_bodies import INVALID_CRUMB, NOT_FOUND, QUOTE_URL, ROW, chart_body, quote_body

CRUMB = "aBcD.eF/12"
COOKIE = "fc.yahoo.com/"
GET_CRUMB = "query1.finance.yahoo.com/v1/test/getcrumb"
CHART = "query2.finance.yahoo.com/v8/finance/chart/"
QUOTE = "query1.finance.yahoo.com/v7/finance/quote"
CONSENT = "guce.yahoo.com/consent"


@pytest.fixture(autouse=True)
def _fresh_session() -> Iterator[None]:
    yahoo_session.forget_clients()
    yield
    yahoo_session.forget_clients()


@pytest.fixture
def server(httpserver: HTTPServer, settings: Settings) -> HTTPServer:
    """Return a server that plays all of Yahoo's hosts, ready to hand out the crumb."""
    play_yahoo(httpserver, settings)
    return httpserver


def play_yahoo(server: HTTPServer, settings: Settings) -> None:
    settings.YAHOO_BASE_URL = server.url_for("/")
    server.expect_request("/").respond_with_data("", status=404, headers={"Set-Cookie": "A3=cookie; path=/"})
    server.expect_request("/v1/test/getcrumb").respond_with_data(CRUMB)


# Of the tests that are not about cookie and crumb: they take a second of the budget.
_clients_with_a_crumb: dict[str, Any] = {}


@pytest.fixture
def ready_server(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """Return a server whose crumb this process has already."""
    monkeypatch.setattr(yahoo_session, "_clients", _clients_with_a_crumb)
    if not _clients_with_a_crumb:
        server.expect_oneshot_request("/v8/finance/chart/FIRST").respond_with_json(NOT_FOUND, status=404)
        fetch_chart("FIRST")
        server.clear_log()
    return server


def requested(server: HTTPServer) -> list[str]:
    """Return the requests so far, each as its original host and path."""
    return [request.headers["X-Forwarded-Host"] + request.path for request, _ in server.log]


def fetch_chart(symbol: str = "AAPL") -> RawAnswer:
    return Yahoo().fetch(Request("chart", (symbol,)))


def fetch_quote() -> RawAnswer:
    return Yahoo().fetch(Request("quote", ("AAPL", "MSFT")))


def failure_of_chart() -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        fetch_chart()
    assert caught.value.kind == ErrorKind.UPSTREAM_ERROR
    assert caught.value.__context__ is None
    return caught.value


def test_fetch_chart_gives_the_answer_under_the_real_url(server: HTTPServer) -> None:
    server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW), headers={"X-Y": "z"})
    answer = fetch_chart()
    assert (answer.provider, answer.symbols, answer.status) == ("yfinance", ("AAPL",), 200)
    assert answer.url == "https://query2.finance.yahoo.com/v8/finance/chart/AAPL?range=1d&interval=1d"
    assert answer.headers["x-y"] == "z"
    assert quote_of(Yahoo().parse(answer)["AAPL"]).currency == "USD"
    assert requested(server) == [COOKIE, GET_CRUMB, CHART + "AAPL"]
    assert server.log[-1][0].args["crumb"] == CRUMB


def test_first_call_takes_less_than_two_seconds(server: HTTPServer) -> None:
    server.expect_request("/v7/finance/quote").respond_with_json(quote_body(ROW))
    started = time.monotonic()
    assert fetch_quote().status == 200
    assert time.monotonic() - started < 2
    assert requested(server) == [COOKIE, GET_CRUMB, QUOTE]


def permitted_chart(symbol: str) -> RawAnswer:
    """Fetch a chart as a poll does: with a permit, and a report of what became of it."""
    permit = granted_soon("yfinance")
    with sending(Outgoing(permit)) as outgoing:
        answer = fetch_chart(symbol)
    report_outcome(permit, quote(), answer=answer, entry=outgoing.entry)
    return answer


@pytest.mark.parametrize("budget", [None, "1/1s"])
def test_threads_that_begin_together_share_one_crumb(settings: Settings, budget: str | None) -> None:
    if budget:
        settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"yfinance": budget}
    with HTTPServer(threaded=True) as server:
        play_yahoo(server, settings)
        server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(permitted_chart, ["AAPL"] * 2))
        assert [answer.status for answer in answers] == [200] * 2
        assert sorted(requested(server)) == sorted([COOKIE, GET_CRUMB, *[CHART + "AAPL"] * 2])
        assert all("crumb" in request.args for request, _ in server.log[2:])


@pytest.mark.parametrize("budget", ["1/1m", "2/1m", "1/1s,2/1d"])
def test_budget_without_room_for_a_crumb_is_kept_for_the_data(
    server: HTTPServer, settings: Settings, budget: str
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"yfinance": budget}
    server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    assert permitted_chart("AAPL").status == 200
    assert requested(server) == [CHART + "AAPL"]


def test_answer_repeats_neither_cookie_nor_crumb(httpserver: HTTPServer, settings: Settings) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("/")
    cookies = {"Set-Cookie": "A3=d=a-cookie/+%2B&S=x; path=/"}
    httpserver.expect_request("/").respond_with_data("", headers=cookies)
    httpserver.expect_request("/v1/test/getcrumb").respond_with_data(CRUMB)

    def echo(request: HttpRequest) -> Response:
        text = f"{request.args['crumb']} {request.cookies['A3']} {request.url}"
        return Response(text, headers={"X-Echo": text, "Set-Cookie": "B=another-cookie"})

    httpserver.expect_request("/v8/finance/chart/AAPL").respond_with_handler(echo)
    for _ in range(2):
        answer = fetch_chart()
        assert answer.body.startswith(b"[redacted] [redacted] http")
        assert answer.headers["x-echo"] == answer.body.decode()
        assert "crumb=[redacted]" in answer.headers["x-echo"]
        assert "set-cookie" not in answer.headers


def test_crumb_that_was_refused_is_taken_out_too(httpserver: HTTPServer, settings: Settings) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("/")
    httpserver.expect_request("/").respond_with_data("", headers={"Set-Cookie": "A3=cookie"})
    httpserver.expect_request("/consent").respond_with_data("<html>no form</html>")
    httpserver.expect_oneshot_request("/v1/test/getcrumb").respond_with_data("first-crumb")
    httpserver.expect_request("/v1/test/getcrumb").respond_with_data("second-crumb")
    httpserver.expect_oneshot_request("/v7/finance/quote").respond_with_json(INVALID_CRUMB, status=401)
    httpserver.expect_request("/v7/finance/quote").respond_with_data("first-crumb, second-crumb, third-crumb")
    assert fetch_quote().body == b"[redacted], [redacted], third-crumb"


def test_cookie_that_is_a_number_changes_no_price(ready_server: HTTPServer) -> None:
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_json(
        chart_body(ROW), headers={"Set-Cookie": f"seen={ROW['regularMarketTime']}"}
    )
    for _ in range(2):
        assert quote_of(Yahoo().parse(fetch_chart())["AAPL"]).price == Decimal("244.6")


def test_chart_that_stays_packed_is_refused(ready_server: HTTPServer) -> None:
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_data(gzip.compress(CRUMB.encode()))
    assert failure_of_chart().message == "the answer cannot be decompressed"


def test_chart_that_is_packed_as_for_browsers_is_read(ready_server: HTTPServer) -> None:
    body = brotli_stored(json.dumps(chart_body(ROW)).encode())
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_data(
        body, headers={"Content-Encoding": "br"}
    )
    assert quote_of(Yahoo().parse(fetch_chart())["AAPL"]).price == Decimal("244.6")


def brotli_stored(data: bytes) -> bytes:
    """Return brotli of data of up to 64 KiB as RFC 7932 has it uncompressed: a window, one block, the end."""
    # WBITS 16 (1 bit: 0), ISLAST 0, MNIBBLES 4 (2 bits: 0), MLEN - 1 (16 bits), ISUNCOMPRESSED 1.
    header = ((len(data) - 1) << 4) | (1 << 20)
    return header.to_bytes(3, "little") + data + b"\x03"


def test_fetch_again_uses_the_cookie_and_the_crumb_again(server: HTTPServer) -> None:
    server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    for _ in range(3):
        fetch_chart()
    assert requested(server) == [COOKIE, GET_CRUMB, *[CHART + "AAPL"] * 3]
    assert server.log[-1][0].cookies["A3"] == "cookie"


@pytest.mark.parametrize(
    ("symbol", "path"),
    [
        *(("^GSPC", "^GSPC"), ("GC=F", "GC=F"), ("BRK.B", "BRK-B"), ("A/B", "A/B")),
        *(("USD/JPY", "USDJPY=X"), ("JPY=X", "USDJPY=X"), ("EURUSD=X", "EURUSD=X")),
    ],
)
def test_fetch_chart_spells_the_symbol_as_yahoo_does(
    ready_server: HTTPServer, symbol: str, path: str
) -> None:
    ready_server.expect_request(f"/v8/finance/chart/{path}").respond_with_json(
        chart_body({**ROW, "symbol": path, "currency": None})
    )
    answer = fetch_chart(symbol)
    assert quote_of(Yahoo().parse(answer)[symbol]).symbol == symbol


def test_fetch_quote_asks_for_all_symbols_at_once(ready_server: HTTPServer) -> None:
    ready_server.expect_request(
        "/v7/finance/quote", query_string={"symbols": "AAPL,MSFT", "crumb": CRUMB}
    ).respond_with_json(quote_body(ROW, {**ROW, "symbol": "MSFT"}))
    answer = fetch_quote()
    assert answer.url == QUOTE_URL
    assert [quote_of(result).symbol for result in Yahoo().parse(answer).values()] == ["AAPL", "MSFT"]


def test_fetch_quote_asks_once_for_symbols_that_are_spelled_alike(ready_server: HTTPServer) -> None:
    symbols = ("JPY=X", "AAPL", "USDJPY=X", "USD/JPY")
    ready_server.expect_request(
        "/v7/finance/quote", query_string={"symbols": "USDJPY=X,AAPL", "crumb": CRUMB}
    ).respond_with_json(quote_body(ROW, {**ROW, "symbol": "JPY=X", "currency": "JPY"}))
    results = Yahoo().parse(Yahoo().fetch(Request("quote", symbols)))
    assert [quote_of(result).symbol for result in results.values()] == list(symbols)


def test_refused_crumb_is_fetched_anew_once(server: HTTPServer) -> None:
    server.expect_oneshot_request("/v7/finance/quote").respond_with_json(INVALID_CRUMB, status=401)
    server.expect_request("/v7/finance/quote").respond_with_json(quote_body(ROW))
    server.expect_request("/consent").respond_with_data("<html>no form</html>")
    assert fetch_quote().status == 200
    assert requested(server) == [COOKIE, GET_CRUMB, QUOTE, CONSENT, COOKIE, GET_CRUMB, QUOTE]


def test_crumb_refused_twice_is_the_answer_and_charts_take_its_place(server: HTTPServer) -> None:
    server.expect_request("/v7/finance/quote").respond_with_json(INVALID_CRUMB, status=401)
    server.expect_request("/consent").respond_with_data("<html>no form</html>")
    for symbol in ("AAPL", "MSFT"):
        body = chart_body({**ROW, "symbol": symbol})
        server.expect_request(f"/v8/finance/chart/{symbol}").respond_with_json(body)
    adapter = Yahoo()
    refused = fetch_quote()
    assert refused.status == 401
    answers = [adapter.fetch(request) for request in adapter.fallback(refused)]
    results = {symbol: result for answer in answers for symbol, result in adapter.parse(answer).items()}
    assert [quote_of(results[symbol]).symbol for symbol in ("AAPL", "MSFT")] == ["AAPL", "MSFT"]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (503, "unavailable"),
        (429, "Too Many Requests\r\n"),
        (200, "Too Many Requests"),
        (500, "{}"),
        (200, "<!DOCTYPE html>\n<html lang='en'>"),
    ],
)
def test_chart_is_answered_without_a_crumb(
    httpserver: HTTPServer, settings: Settings, status: int, text: str
) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("/")
    httpserver.expect_request("/").respond_with_data("")
    httpserver.expect_request("/consent").respond_with_data('<html><input name="csrfToken" value="x"></html>')
    httpserver.expect_request("/v1/test/getcrumb").respond_with_data(text, status=status)
    httpserver.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    assert fetch_chart().status == 200
    assert "crumb" not in httpserver.log[-1][0].args
    before = len(httpserver.log)
    assert fetch_chart().status == 200
    # The crumb is not asked for again for a while.
    assert requested(httpserver)[before:] == [CHART + "AAPL"]


@pytest.mark.parametrize("status", [404, 422, 429, 500, 503])
def test_refused_chart_is_not_asked_for_again(ready_server: HTTPServer, status: int) -> None:
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_data(
        "no", status=status, headers={"Retry-After": "60"}
    )
    answer = fetch_chart()
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, b"no", "60")
    assert requested(ready_server) == [CHART + "AAPL"]


def test_redirect_is_an_answer(ready_server: HTTPServer) -> None:
    location = {"Location": "https://finance.yahoo.com/"}
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_data(
        "moved", status=301, headers=location
    )
    answer = fetch_chart()
    assert (answer.status, kind_of(Yahoo().parse(answer)["AAPL"])) == (301, ErrorKind.UPSTREAM_ERROR)
    assert requested(ready_server) == [CHART + "AAPL"]


@pytest.mark.parametrize(
    "foreign",
    [
        "https://yahoo.com.evil.example/",
        "https://evilyahoo.com/",
        "http://fc.yahoo.com/c",
        "file://fc.yahoo.com/c",
    ],
)
def test_cookie_redirect_stays_within_yahoo(httpserver: HTTPServer, settings: Settings, foreign: str) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("/")
    for path, location in (("/", "https://guce.yahoo.com/a"), ("/a", "b"), ("/b", foreign)):
        httpserver.expect_request(path).respond_with_data("", status=302, headers={"Location": location})
    httpserver.expect_request("/consent").respond_with_data("")
    httpserver.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    assert fetch_chart().status == 200
    assert requested(httpserver) == [
        COOKIE,
        "guce.yahoo.com/a",
        "guce.yahoo.com/b",
        CONSENT,
        CHART + "AAPL",
    ]


def test_larger_than_a_mebibyte_is_refused(ready_server: HTTPServer) -> None:
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_data(b"x" * (1024 * 1024 + 1))
    assert "larger than 1 MiB" in failure_of_chart().message


def test_larger_cookie_page_costs_only_the_crumb(httpserver: HTTPServer, settings: Settings) -> None:
    settings.YAHOO_BASE_URL = httpserver.url_for("/")
    httpserver.expect_request("/").respond_with_data(b"x" * (1024 * 1024 + 1))
    httpserver.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    assert fetch_chart().status == 200


def test_proxy_of_the_environment_is_not_used(
    ready_server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    ready_server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    assert fetch_chart().status == 200


def test_refused_connection_is_an_upstream_error(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.YAHOO_BASE_URL = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert "cannot be reached" in failure_of_chart().message


def test_silence_ends_at_the_deadline(settings: Settings) -> None:
    settings.PROVIDER_TIMEOUT_S = 0.6
    with raw_server(partial(drip, start=b"", piece=b"")) as url:
        settings.YAHOO_BASE_URL = url
        started = time.monotonic()
        error = failure_of_chart()
        assert isinstance(error, ProviderTimeoutError)
        assert 0.5 < time.monotonic() - started < 1.5


@dataclass(frozen=True)
class Hang:
    """A request for the cookie that is not answered until it is over."""

    begun: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, _: Any) -> Response:
        self.begun.set()
        self.over.wait(10)
        return Response("")


@pytest.fixture
def cookie_hang(settings: Settings) -> Iterator[Hang]:
    """Yield the hang of a server that answers charts at once."""
    hang = Hang()
    with HTTPServer(threaded=True) as server:
        settings.YAHOO_BASE_URL = server.url_for("/")
        server.expect_request("/").respond_with_handler(hang.answer)
        server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
        yield hang
        hang.over.set()


@pytest.mark.usefixtures("cookie_hang")
def test_charts_are_answered_though_the_cookie_hangs(settings: Settings) -> None:
    settings.PROVIDER_TIMEOUT_S = 4
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(fetch_chart, ["AAPL"] * 2))
    assert [answer.status for answer in answers] == [200] * 2
    assert time.monotonic() - started < 4


def test_chart_does_not_wait_for_another_that_waits_for_the_cookie(
    cookie_hang: Hang, settings: Settings
) -> None:
    settings.PROVIDER_TIMEOUT_S = 8
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch_chart)
        assert cookie_hang.begun.wait(5)
        settings.PROVIDER_TIMEOUT_S = 1
        assert fetch_chart().latency_ms < 1000
        assert not first.done()
        cookie_hang.over.set()


def test_session_prints_nothing_and_logs_no_crumb(
    server: HTTPServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server.expect_request("/v8/finance/chart/AAPL").respond_with_json(NOT_FOUND, status=404)
    caplog.set_level(logging.WARNING, logger="werkzeug")
    caplog.set_level(logging.DEBUG)
    answer = fetch_chart()
    assert CRUMB not in caplog.text + repr(answer)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_session_is_not_shared_with_a_child_process(server: HTTPServer) -> None:
    server.expect_request("/v8/finance/chart/AAPL").respond_with_json(chart_body(ROW))
    fetch_chart()
    child = os.fork()
    if child == 0:
        status = fetch_chart().status
        os._exit(0 if status == 200 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert requested(server) == [COOKIE, GET_CRUMB, CHART + "AAPL"] * 2
