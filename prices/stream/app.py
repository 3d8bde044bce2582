"""The application that the stream's server runs: GET /prices/stream, and nothing else."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import Error
from django.http import HttpRequest, HttpResponse
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from prices.access.keys import InvalidKeyError
from prices.api.access.authentication import KeyRequiredError
from prices.api.errors import bad_request, plain_problem, problem_page
from prices.api.problems import problem_for
from prices.stream.clients import Begin, begin, frames
from prices.stream.hub import Hub
from prices.stream.requests import Credential, Opened, django_request, open_request
from prices.stream.subscription import Subscription

log = structlog.get_logger(__name__)

PATH = "/prices/stream"
# A client that takes nothing for so long is cut off.
SEND_TIMEOUT_S = 10.0
MOST_CLIENTS = 5_000
READY_WITHIN_S = 5.0
CHECKED_EACH_S = 15.0
# Pings are the stream's own: they tell where the client is.
_NO_PING = 0


class StreamServer:
    """The reader, its clients, and what they may do."""

    def __init__(self) -> None:
        self._credentials: dict[Subscription, Credential] = {}
        routes = [Route(path, self._answer, methods=["GET", "OPTIONS"]) for path in (PATH, f"{PATH}/")]
        self.application = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={404: self._no_such_address, 405: self._method_not_allowed},
        )

    @asynccontextmanager
    async def _lifespan(self, _application: Starlette) -> AsyncIterator[None]:
        self._hub = Hub()
        tasks = [asyncio.create_task(self._hub.run()), asyncio.create_task(self._check_credentials())]
        for task in tasks:
            # A bug must not leave a server that answers and streams nothing.
            task.add_done_callback(_end_process)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(_end_process)
                task.cancel()
            self._hub.close()

    async def _answer(self, request: Request) -> Response:
        django = django_request(request.scope)
        try:
            allowed = cors_headers(django)
        except DisallowedHost as error:
            return _response(bad_request(django, error))
        if request.method == "OPTIONS":
            return Response(
                status_code=HTTPStatus.NO_CONTENT, headers=allowed | _PREFLIGHT if allowed else {}
            )
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=allowed)
        try:
            answer = await self._open(django)
        except Exception as error:
            found = problem_for(error)
            if found is None:
                raise
            answer = _response(
                problem_page(found.status, found.name, found.detail, **found.more), found.headers
            )
        answer.headers.update(allowed)
        return answer

    async def _open(self, request: HttpRequest) -> Response:
        hub = self._hub
        if len(hub.subscriptions) >= MOST_CLIENTS:
            detail = f"{MOST_CLIENTS:,} streams are open; this is one more."
            page = problem_page(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-streams", detail)
            return _response(page, {"Retry-After": "5"})
        opened: Opened = await hub.query(partial(open_request, request))
        if not await hub.ready(timeout_s=READY_WITHIN_S):
            page = problem_page(
                HTTPStatus.SERVICE_UNAVAILABLE, "database-away", "The database cannot be reached."
            )
            return _response(page, {"Retry-After": "5"})
        start = await begin(hub, opened.wish)
        if opened.credential is not None:
            self._credentials[start.subscription] = opened.credential
        return _Stream(self, start)

    def stream(self, start: Begin) -> AsyncIterator[bytes]:
        """Return what a client is sent."""
        return frames(self._hub, start)

    def forget(self, subscription: Subscription) -> None:
        """Forget a client that has left."""
        self._hub.unsubscribe(subscription)
        self._credentials.pop(subscription, None)

    async def _check_credentials(self) -> None:
        """End the streams of keys and sessions that open nothing any more."""
        while True:
            await asyncio.sleep(CHECKED_EACH_S)
            holders: defaultdict[Credential, list[Subscription]] = defaultdict(list)
            for subscription, credential in self._credentials.items():
                holders[credential].append(subscription)
            for credential, subscriptions in holders.items():
                try:
                    # While the database is away nothing is sent, either.
                    with suppress(Error):
                        await self._hub.query(credential.check)
                except (InvalidKeyError, KeyRequiredError) as error:
                    for subscription in subscriptions:
                        subscription.end(str(error))

    async def _no_such_address(self, request: Request, _error: Exception) -> Response:
        return _response(plain_problem(django_request(request.scope)))

    async def _method_not_allowed(self, request: Request, _error: Exception) -> Response:
        detail = f'Method "{request.method}" not allowed.'
        page = problem_page(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        return _response(page, {"Allow": "GET, OPTIONS"})


class _Stream(EventSourceResponse):
    """One client's answer; however it ends, the client is forgotten."""

    def __init__(self, server: StreamServer, start: Begin) -> None:
        super().__init__(server.stream(start), ping=_NO_PING, send_timeout=SEND_TIMEOUT_S)
        self._server, self._subscription = server, start.subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            # The server closes a connection whose answer has no end.
            log.info("stream.client_cut_off", takes_nothing_for_s=SEND_TIMEOUT_S)
        finally:
            self._server.forget(self._subscription)


_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization, X-API-Key, Last-Event-ID, Cache-Control",
    "Access-Control-Max-Age": "600",
}


def cors_headers(request: HttpRequest) -> dict[str, str]:
    """Return what lets the service's own pages read the answer: they have this host's name, at PORT.

    Raises DisallowedHost.
    """
    host = request.get_host()
    if host.rpartition(":")[2].isdigit():
        host = host.rpartition(":")[0]
    default_port = 443 if request.scheme == "https" else 80
    port = "" if default_port == settings.PORT else f":{settings.PORT}"
    origin = request.META.get("HTTP_ORIGIN")
    if origin != f"{request.scheme}://{host}{port}":
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


def _response(page: HttpResponse, headers: Mapping[str, str] | None = None) -> Response:
    return Response(page.content, page.status_code, {**dict(page.items()), **(headers or {})})


def _end_process(task: "asyncio.Task[Any]") -> None:
    log.error("stream.failed", exc_info=task.exception() if not task.cancelled() else None)
    raise SystemExit(1)
