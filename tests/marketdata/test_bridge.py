"""Requests reach the application whole, and answers leave it whole or are cut."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from marketdata import bridge
from marketdata.bridge import BODY_LIMIT_BYTES, Bridge
from marketdata.serving import answers

Message = MutableMapping[str, Any]


@pytest.fixture(autouse=True)
def pieces_of_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PIECE_BYTES", 1)


CHUNKED = (b"transfer-encoding", b"chunked")


class Client:
    """One request: what it sends in turn, and what it was answered."""

    def __init__(
        self, *pieces: bytes, method: str = "POST", headers: Iterable[tuple[bytes, bytes]] = (CHUNKED,)
    ) -> None:
        self.scope: Message = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": "/a b",
            "raw_path": b"/a%20b",
            "query_string": b"q=%41",
            "headers": list(headers),
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        self._pieces = list(pieces)
        self.is_gone = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self.answer: list[Message] = []

    async def receive(self) -> Message:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.answer.append(message)

    @property
    def status(self) -> int:
        return int(self.answer[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.answer[1:])

    @property
    def is_ended(self) -> bool:
        return self.answer[-1].get("more_body") is False


class Streamed:
    """A streamed answer; notes the threads that make it, and whether it was closed."""

    streaming = True

    def __init__(self, pieces: Callable[[], Iterator[bytes]]) -> None:
        self._pieces = pieces
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces()

    def close(self) -> None:
        self.is_closed = True


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("X-Length", environ["CONTENT_LENGTH"])])
    return [environ["wsgi.input"].read()]


def serve(application: Any, client: Client) -> None:
    asyncio.run(Bridge(application, threads=2)(client.scope, client.receive, client.send))


def test_body_in_pieces_reaches_the_application_whole() -> None:
    client = Client(b"ab", b"", b"c")
    serve(echo, client)
    assert (client.status, client.body, client.is_ended) == (200, b"abc", True)
    assert client.answer[0]["headers"] == [(b"x-length", b"3")]


def test_request_is_told_as_wsgi_has_it() -> None:
    seen: dict[str, Any] = {}

    def look(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen.update(environ)
        start_response("204 No Content", [])
        return []

    headers = [
        (b"host", b"example"),
        (b"content-type", b"application/json"),
        (b"content-length", b"99"),
        (b"transfer-encoding", b"chunked"),
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"cookie", b"x=1"),
        (b"cookie", b"y=2"),
        (b"x-under_score", b"forged"),
    ]
    serve(look, Client(b"{}", headers=headers))
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["REMOTE_ADDR"]) == ("/a b", "q=%41", "127.0.0.1")
    assert (seen["CONTENT_TYPE"], seen["CONTENT_LENGTH"]) == ("application/json", "2")
    assert (seen["HTTP_ACCEPT"], seen["HTTP_COOKIE"]) == ("a,b", "x=1; y=2")
    assert not {"HTTP_X_UNDER_SCORE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"} & set(seen)


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [
        ([b"x"], [(b"content-length", b"%d" % (BODY_LIMIT_BYTES + 1))]),
        ([b"x" * BODY_LIMIT_BYTES, b"x"], [CHUNKED]),
    ],
)
def test_body_that_is_too_large_is_413(pieces: list[bytes], headers: list[tuple[bytes, bytes]]) -> None:
    client = Client(*pieces, headers=headers)
    serve(echo, client)
    assert (client.status, client.is_ended) == (413, True)
    assert b"body-too-large" in client.body
    assert (b"connection", b"close") in client.answer[0]["headers"]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answer_without_a_body_has_no_length(status: str) -> None:
    def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [("Content-Length", "0"), ("ETag", '"a"')])
        return []

    client = Client(method="HEAD", headers=[])
    serve(application, client)
    assert client.answer[0]["headers"] == [(b"etag", b'"a"')]


def test_body_of_the_largest_size_is_taken() -> None:
    client = Client(b"x" * BODY_LIMIT_BYTES)
    serve(echo, client)
    assert (client.status, len(client.body)) == (200, BODY_LIMIT_BYTES)


def test_body_that_does_not_come_is_408_and_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "BODY_WITHIN_S", 0.05)
    client = Client()
    serve(lambda *_: pytest.fail("the application was called"), client)
    assert (client.status, client.is_ended) == (408, True)


def test_request_whose_headers_tell_of_no_body_is_not_waited_for() -> None:
    client = Client(method="GET", headers=[])
    serve(echo, client)
    assert (client.status, client.body) == (200, b"")


def test_body_of_http_2_needs_no_header() -> None:
    client = Client(b"{", b"}", headers=[])
    client.scope["http_version"] = "2"
    serve(echo, client)
    assert client.body == b"{}"


def test_client_that_leaves_before_its_body_is_there_is_not_answered() -> None:
    client = Client()
    client.is_gone.set()
    serve(echo, client)
    assert client.answer == []


def stream(streamed: Streamed) -> Callable[..., Iterable[bytes]]:
    def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return streamed

    return application


def test_streamed_answer_is_sent_as_it_is_made_and_closed() -> None:
    streamed = Streamed(lambda: iter([b"a", b"", b"b"]))
    client = Client(b"", method="GET")
    serve(stream(streamed), client)
    assert [each.get("body") for each in client.answer[1:]] == [b"a", b"b", b""]
    assert (client.is_ended, streamed.is_closed) == (True, True)


def test_small_pieces_are_joined_and_large_ones_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PIECE_BYTES", 3)
    client = Client(b"", method="GET")
    serve(stream(Streamed(lambda: iter([b"a", b"b", b"cdefghij", b"", b"k"]))), client)
    assert [each.get("body") for each in client.answer[1:]] == [b"abc", b"def", b"ghi", b"jk", b""]


def test_head_of_a_streamed_answer_makes_nothing_of_it() -> None:
    made: list[int] = []

    def pieces() -> Iterator[bytes]:
        made.append(1)
        yield b"x"

    streamed = Streamed(pieces)
    client = Client(b"", method="HEAD")
    serve(stream(streamed), client)
    assert (client.status, client.body, client.is_ended, streamed.is_closed) == (200, b"", True, True)
    assert made == []


def test_streamed_answer_that_fails_is_cut_and_not_ended(caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("broken")

    streamed = Streamed(pieces)
    client = Client(b"", method="GET")
    serve(stream(streamed), client)
    assert (client.is_ended, streamed.is_closed) == (False, True)
    (record,) = caplog.records
    assert isinstance(record.msg, dict)
    assert (record.msg["event"], record.levelname) == ("download.failed", "ERROR")
    assert record.exc_info


def test_client_that_leaves_ends_the_making_of_its_answer() -> None:
    made: list[int] = []
    client = Client(b"", method="GET")

    def pieces() -> Iterator[bytes]:
        for number in range(1_000_000):
            made.append(number)
            if number == 3:
                client.is_gone.set()
            yield b"x"

    streamed = Streamed(pieces)
    serve(stream(streamed), client)
    assert len(made) < 1_000
    assert (client.is_ended, streamed.is_closed) == (False, True)


def test_what_a_request_binds_is_bound_wherever_it_is_handled(caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield get_contextvars()["request_id"].encode()
        raise ValueError("broken")

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        assert "request_id" not in get_contextvars()
        bind_contextvars(request_id=environ["QUERY_STRING"])
        start_response("200 OK", [])
        return Streamed(pieces)

    clients = [Client(b"", method="GET") for _ in range(20)]
    for number, client in enumerate(clients):
        client.scope["query_string"] = b"%02d" % number

    # What a test client has left in this thread.
    clear_contextvars()

    async def serve_all() -> None:
        bridge = Bridge(application, threads=4)
        await asyncio.gather(*(bridge(client.scope, client.receive, client.send) for client in clients))

    asyncio.run(serve_all())
    assert [client.body for client in clients] == [b"%02d" % number * 3 for number in range(20)]
    logged = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert sorted(each["request_id"] for each in logged) == [f"{number:02}" for number in range(20)]


def test_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "SENT_WITHIN_S", 0.05)
    client = Client(b"", method="GET")

    def pieces() -> Iterator[bytes]:
        client.takes.clear()
        while True:
            yield b"x"

    streamed = Streamed(pieces)
    serve(stream(streamed), client)
    assert (client.is_ended, streamed.is_closed) == (False, True)
