"""Bodies of requests: few are read at once, so that what needs none finds a thread.

The web server (granian 2.8) hands a request over once its headers are there, and has no time-out for a body:
the thread that reads a body waits for the client. Clients who send a part of one would hold all threads, and
with them /livez and GET latest. Nor can such a thread be given up: were its request answered meanwhile,
granian would wait for it with the interpreter's lock in hand, and the whole process with it.
"""

import threading
from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from prices.api.errors import problem_page

# A job of 100 symbols of 32 characters takes 4 KB.
BODY_LIMIT_BYTES = 256 * 1024
# Of the 16 threads that serve, LATEST_MAX_FETCHES (8) may wait for providers; 4 are left to answer.
READERS = 4
# A body that has been sent is read in less than a millisecond.
WAIT_FOR_READER_S = 0.25
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def read_bodies(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Read a request's body before anything else does; refuse one that is too large, or where READERS wait.

    400 by its Content-Length, before it is read; 503 with Retry-After.
    """
    readers = threading.BoundedSemaphore(READERS)

    def middleware(request: HttpRequest) -> HttpResponse:
        return _read(request, readers) or get_response(request)

    return middleware


def _read(request: HttpRequest, readers: threading.BoundedSemaphore) -> HttpResponse | None:
    length = _length_of(request)
    if length == 0 or request.method in _WITHOUT_BODY:
        return None
    if length > BODY_LIMIT_BYTES:
        detail = f"the body is larger than {BODY_LIMIT_BYTES} bytes"
        error = {"field": "body", "problem": detail, "allowed": "up to 256 KiB"}
        return problem_page(HTTPStatus.BAD_REQUEST, "invalid-body", detail, errors=[error])
    if not readers.acquire(timeout=WAIT_FOR_READER_S):
        detail = "Too many requests wait for their bodies just now."
        problem = problem_page(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-bodies", detail)
        problem["Retry-After"] = "1"
        return problem
    try:
        # Kept by the request for whoever reads it next.
        _ = request.body
    finally:
        readers.release()
    return None


def _length_of(request: HttpRequest) -> int:
    # What is no number is no length for Django either: it then reads nothing.
    try:
        return max(int(request.META.get("CONTENT_LENGTH") or 0), 0)
    except ValueError:
        return 0
