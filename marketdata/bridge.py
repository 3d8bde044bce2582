"""From ASGI to Django's WSGI handler: a request takes a thread once all of its body is there.

So nobody holds a thread by sending slowly, or by not reading what is sent: a body has BODY_WITHIN_S, and each
piece of an answer SENT_WITHIN_S. Django's own ASGI handler would take a thread for each step of a request.

A streamed answer is made piece by piece as the client reads it; between two of them it holds no thread. Where
its making fails, or the client takes nothing, the connection is cut: an end would pass for the whole answer.

Each request has a context (contextvars) of its own, in whichever threads it is handled: the server's own is
the same for all.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http import HTTPStatus
from io import BytesIO
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import unquote_to_bytes

import structlog
from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse

from marketdata.serving.answers import Answer, Headers, Stream, WSGIStream, close
from marketdata.serving.compression import packed
from marketdata.serving.request_ids import give_request_id
from prices.api.errors import problem_page

log = structlog.get_logger(__name__)

BODY_LIMIT_BYTES = 1024 * 1024
# RFC 9110, 8.6: no length is told of what is not there, and none of another answer. Django tells 0.
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
BODY_WITHIN_S = 5.0
SENT_WITHIN_S = 30.0

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_T = TypeVar("_T")
WSGIApplication: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ClientGoneError(Exception):
    """The client has closed the connection, or takes nothing of its answer."""


class _RefusedError(Exception):
    """The body is not waited for any longer; `problem` says why."""

    def __init__(self, problem: HttpResponse) -> None:
        super().__init__()
        self.problem = problem


class Bridge:
    """Serves ASGI's HTTP requests by a WSGI application, `threads` of them at a time."""

    def __init__(self, application: WSGIApplication, *, threads: int) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="web")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await _read_body(scope, receive)
        except ClientGoneError:
            return
        except _RefusedError as refused:
            await _send_whole(_refusal(refused.problem, scope), send)
            return
        run = _InContext(self._pool)
        answer = await run(self._packed, _environ(scope, body))
        if answer.more is None:
            await _send_whole(answer, send)
        elif scope["method"] == "HEAD":
            await run(answer.more.close)
            await _send_whole(answer, send)
        else:
            await _stream(answer, answer.more, receive, send, run=run)

    def _packed(self, environ: dict[str, Any]) -> Answer:
        accepted = environ.get("HTTP_ACCEPT_ENCODING", "")
        return packed(self._respond(environ), path=environ["PATH_INFO"], accepted=accepted)

    def _respond(self, environ: dict[str, Any]) -> Answer:
        started: list[tuple[str, list[tuple[str, str]]]] = []
        response = self._application(
            environ, lambda status, headers, *_error: started.append((status, headers))
        )
        ((status, pairs),) = started
        code = int(status.split(" ", 1)[0])
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        if code in _WITHOUT_BODY:
            headers = [header for header in headers if header[0] != b"content-length"]
        if getattr(response, "streaming", False):
            return Answer(code, headers, b"", WSGIStream(response))
        try:
            return Answer(code, headers, b"".join(response))
        finally:
            # Here, in the thread of the request: its connections are this thread's.
            close(response)


class _InContext:
    """Calls functions for one request, in threads and here, where they find what the ones before have set."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._context = copy_context()

    def __call__(self, function: Callable[..., _T], *arguments: Any) -> "asyncio.Future[_T]":
        """Call it in a thread."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, self._context.run, function, *arguments)

    def here(self, function: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call it in this thread."""
        self._context.run(function, *arguments, **named)


async def _stream(answer: Answer, stream: Stream, receive: Receive, send: Send, *, run: _InContext) -> None:
    """Send a streamed answer for as long as the client takes it."""
    gone = asyncio.ensure_future(_wait_until_gone(receive))
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        while (piece := await run(stream.next_piece)) is not None:
            _refuse_gone(gone)
            await _send_piece(piece, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    # Without an end: the server cuts the connection.
    except ClientGoneError as error:
        run.here(log.info, "download.cut", reason=str(error))
    except Exception:  # noqa: BLE001 - it is logged, in the request's context
        run.here(log.exception, "download.failed")
    finally:
        gone.cancel()
        await run(stream.close)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the whole body; raises _RefusedError where it is too large or too slow, or ClientGoneError."""
    length = _declared_length(scope)
    if length == 0:
        return b""
    if length is not None and length > BODY_LIMIT_BYTES:
        raise _RefusedError(_too_large())
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body += message.get("body", b"")
                if len(body) > BODY_LIMIT_BYTES:
                    raise _RefusedError(_too_large())
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        detail = f"The body did not come within {BODY_WITHIN_S:g} s."
        raise _RefusedError(problem_page(HTTPStatus.REQUEST_TIMEOUT, "body-too-slow", detail)) from error


def _declared_length(scope: Scope) -> int | None:
    """Return how long the body is, None where its headers do not say."""
    # In HTTP/2 a body needs neither of the two headers.
    length = 0 if scope["http_version"].startswith("1") else None
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
        if name == b"transfer-encoding":
            length = None
    return length


def _too_large() -> HttpResponse:
    detail = f"The body is larger than {BODY_LIMIT_BYTES} bytes."
    error = {"field": "body", "problem": "too large", "allowed": "up to 1 MiB"}
    return problem_page(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", detail, errors=[error])


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refuse_gone(gone: "asyncio.Future[None]") -> None:
    if gone.done():
        raise ClientGoneError("the client has left")


async def _send_piece(piece: bytes, send: Send) -> None:
    try:
        async with asyncio.timeout(SENT_WITHIN_S):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError as error:
        raise ClientGoneError(f"the client has read nothing for {SENT_WITHIN_S:g} s") from error


async def _send_whole(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _refusal(problem: HttpResponse, scope: Scope) -> Answer:
    # What every other answer is given on its way through Django's middleware.
    request = WSGIRequest(_environ(scope, b""))
    copy_context().run(give_request_id(lambda _request: problem), request)
    if settings.CORS_ALLOWED_ORIGINS:
        CorsMiddleware(lambda _request: problem)(request)
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.items()]
    headers.append((b"content-length", str(len(problem.content)).encode()))
    # What is left of the body is not read.
    headers.append((b"connection", b"close"))
    return Answer(problem.status_code, headers, problem.content)


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return the request as PEP 3333 has it; the body's length is what came."""
    raw_path = scope.get("raw_path") or scope["path"].encode()
    server, client = scope.get("server") or ("localhost", 80), scope.get("client") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw_path.partition(b"?")[0]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": str(client[0]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in cast(Headers, scope["headers"]):
        # Two names that differ in this alone would be one in the environment.
        if b"_" not in name:
            _add_header(environ, name.decode("latin-1"), value.decode("latin-1"))
    environ["CONTENT_LENGTH"] = str(len(body)) if body else ""
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def _add_header(environ: dict[str, Any], name: str, value: str) -> None:
    key = name.upper().replace("-", "_")
    key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
    if key in environ:
        # RFC 9110: several lines of one name are one list; cookies have a sign of their own.
        value = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
    environ[key] = value
