"""Kafka's jars are fetched once, and only with the bytes that the lock names."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from dev.embedded.fetch_jars import FetchError, fetch_jars
from dev.embedded.kafka_jars import Jar, missing_jars

CONTENT = b"the bytes of a jar"
JAR = Jar("org.example", "thing_2.13", "1.0", hashlib.sha256(CONTENT).hexdigest())
URL = "/org/example/thing_2.13/1.0/thing_2.13-1.0.jar"


@pytest.fixture
def mirror(httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """Return a mirror of Maven Central, named by jgo's settings as a company would."""
    settings = tmp_path / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = {httpserver.url_for('').rstrip('/')}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    return httpserver


def asked_for_the_jar(mirror: HTTPServer) -> int:
    return sum(request.path == URL for request, _ in mirror.log)


def test_fetch_puts_each_jar_there_once(mirror: HTTPServer, tmp_path: Path) -> None:
    mirror.expect_request(URL).respond_with_data(CONTENT)
    libs = tmp_path / "libs"

    fetch_jars([JAR], libs)
    fetch_jars([JAR], libs)

    assert (libs / JAR.file_name).read_bytes() == CONTENT
    assert missing_jars([JAR], libs) == []
    assert asked_for_the_jar(mirror) == 1


def test_fetch_refuses_other_bytes(mirror: HTTPServer, tmp_path: Path) -> None:
    mirror.expect_request(URL).respond_with_data(b"something else")
    with pytest.raises(
        FetchError, match=r"thing_2\.13-1\.0\.jar came with other bytes than kafka\.lock names"
    ):
        fetch_jars([JAR], tmp_path / "libs")
    assert not (tmp_path / "libs" / JAR.file_name).exists()


def test_fetch_replaces_a_damaged_jar(mirror: HTTPServer, tmp_path: Path) -> None:
    mirror.expect_request(URL).respond_with_data(CONTENT)
    damaged = tmp_path / JAR.file_name
    damaged.write_bytes(CONTENT[:5])
    assert missing_jars([JAR], tmp_path) == [JAR]

    fetch_jars([JAR], tmp_path)

    assert damaged.read_bytes() == CONTENT


def test_fetch_tries_again_after_an_error(mirror: HTTPServer, tmp_path: Path) -> None:
    mirror.expect_ordered_request(URL).respond_with_data("busy", status=503)
    mirror.expect_ordered_request(URL).respond_with_data(CONTENT[:9])
    mirror.expect_ordered_request(f"{URL}.sha1").respond_with_data("none", status=404)
    mirror.expect_ordered_request(URL).respond_with_data(CONTENT)
    fetch_jars([JAR], tmp_path)
    assert missing_jars([JAR], tmp_path) == []


def test_fetch_goes_on_after_one_that_was_killed(mirror: HTTPServer, tmp_path: Path) -> None:
    mirror.expect_request(URL).respond_with_data(CONTENT)
    half = tmp_path / "draft" / URL[1:]
    half.parent.mkdir(parents=True)
    half.write_bytes(CONTENT[:3])

    fetch_jars([JAR], tmp_path)

    assert missing_jars([JAR], tmp_path) == []
    assert not (tmp_path / "draft").exists()


def test_fetch_of_two_at_once_waits_for_the_first(mirror: HTTPServer, tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def answer(request: Request) -> Response:
        asked.set()
        assert go_on.wait(30)
        return Response(CONTENT)

    mirror.expect_request(URL).respond_with_handler(answer)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch_jars, [JAR], tmp_path)
        assert asked.wait(30)
        second = pool.submit(fetch_jars, [JAR], tmp_path)
        go_on.set()
        first.result(30)
        second.result(30)

    assert asked_for_the_jar(mirror) == 1


def test_fetch_without_the_file_names_it(mirror: HTTPServer, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"thing_2\.13-1\.0\.jar is not to be had"):
        fetch_jars([JAR], tmp_path)
