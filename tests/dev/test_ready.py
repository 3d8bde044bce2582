"""The runner says when the web server is ready, or why it is not."""

import time

import pytest
from pytest_httpserver import HTTPServer

from dev.ready import announce_when_ready
from tests.waiting import wait_until


def test_ready_is_said_once_after_the_first_200(httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request("/readyz").respond_with_data("not yet", status=503)
    httpserver.expect_ordered_request("/readyz").respond_with_data("ok")
    said: list[str] = []

    announce_when_ready(httpserver.url_for("").rstrip("/"), started=time.monotonic() - 100, say=said.append)

    wait_until(lambda: said)
    assert said[0].startswith("ready after 100.")
    assert said[0].endswith(f"s: {httpserver.url_for('/')}")
    assert len(httpserver.log) == 2


def test_ready_is_asked_for_without_a_proxy(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    httpserver.expect_request("/readyz").respond_with_data("ok")
    said: list[str] = []

    announce_when_ready(
        httpserver.url_for("").rstrip("/"), started=time.monotonic(), say=said.append, patience_s=0.2
    )

    wait_until(lambda: said)
    assert said[0].startswith("ready after")


def test_ready_not_in_time_says_what_is_missing(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/readyz").respond_with_data('{"postgresql": "down"}', status=503)
    said: list[str] = []

    announce_when_ready(
        httpserver.url_for("").rstrip("/"), started=time.monotonic(), say=said.append, patience_s=0.2
    )

    wait_until(lambda: said)
    assert said == ['not ready after 0.2 s: /readyz answers 503: {"postgresql": "down"}']
