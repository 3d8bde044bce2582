"""GET /prices/stream, at the port of the REST calls: it is at another one."""

from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from prices.api.errors import problem_page


@csrf_exempt
def misdirected(request: HttpRequest) -> HttpResponse:
    """Tell where the stream is. Not by a redirect: at another port clients leave out their key."""
    detail = "The stream has a server of its own: ask at the address in stream_url."
    return problem_page(
        HTTPStatus.MISDIRECTED_REQUEST, "ask-the-stream", detail, stream_url=stream_url(request)
    )


def stream_url(request: HttpRequest) -> str:
    """Return the stream's address for whoever sent the request, with its query."""
    address = stream_address(request)
    query = request.META["QUERY_STRING"]
    return f"{address}?{query}" if query else address


def stream_address(request: HttpRequest) -> str:
    """Return the stream's address for whoever sent the request: STREAM_URL, or its port at the same host."""
    return settings.STREAM_URL or _own_url(request)


def _own_url(request: HttpRequest) -> str:
    host = request.get_host()
    name, _colon, port = host.rpartition(":")
    return (
        f"{request.scheme}://{name if port.isdigit() and name else host}:{settings.STREAM_PORT}/prices/stream"
    )
