"""Answers that the client has already: 304 where nothing of one has changed (RFC 9110, 13.1.2).

The tag of an answer (ETag) is made of the versions of the rows that it tells, or else of its bytes. It is a
weak one, as an answer may be packed on its way.
"""

from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from typing import TypeVar

import structlog
from django.conf import settings
from django.db import Error, connection
from django.http import HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.views import APIView

log = structlog.get_logger(__name__)

_View = TypeVar("_View", bound=APIView)
_Get = Callable[[_View, Request], HttpResponseBase]


def conditional(
    current_tag: Callable[[Request], str | None], *, varies_by: str = "Accept-Encoding"
) -> Callable[[_Get[_View]], _Get[_View]]:
    """Have the GET of a view answer 304 to who has what it would answer.

    `current_tag` returns the tag of that from less than it takes to answer, None where it takes as much: it
    is then made of the answer. `varies_by` are the headers by which the answer is chosen.
    """

    def decorate(get: _Get[_View]) -> _Get[_View]:
        @wraps(get)
        def answer(view: _View, request: Request) -> HttpResponseBase:
            known = request.META.get("HTTP_IF_NONE_MATCH", "")
            tag = _read_tag(current_tag, request) if known else None
            if tag is not None and _is_among(tag, known):
                return _to_be_kept(HttpResponseNotModified(), tag, varies_by)
            response = get(view, request)
            tag = response.headers.get("ETag")
            if tag is None and isinstance(response, HttpResponse):
                tag = tag_of(response.content)
                if _is_among(tag, known):
                    response = HttpResponseNotModified()
            return _to_be_kept(response, tag, varies_by)

        return answer

    return decorate


def request_tag(request: Request, *parts: str) -> str:
    """Return the tag of what this request is answered, which is another one where one of the parts is."""
    return tag_of(request.META["PATH_INFO"], request.META["QUERY_STRING"], *parts)


def tag_of(*parts: str | bytes) -> str:
    """Return a tag that is another one where one of the parts is, or the service's version."""
    digest = blake2b(digest_size=16)
    for part in (settings.VERSION, *parts):
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(b"%d " % len(data) + data)
    return f'W/"{digest.hexdigest()}"'


def _read_tag(current_tag: Callable[[Request], str | None], request: Request) -> str | None:
    try:
        return current_tag(request)
    except Error as error:
        # A lost connection, mostly. To answer in full another one is made, or it is told what is wrong.
        log.info("tag.not_read", reason=str(error).partition("\n")[0])
        connection.close()
        return None


def _is_among(tag: str, known: str) -> bool:
    # RFC 9110, 8.8.3.2: whether one is weak does not matter here. No tag has a quote within.
    return known.strip() == "*" or tag.removeprefix("W/") in known


def _to_be_kept(response: HttpResponseBase, tag: str | None, varies_by: str) -> HttpResponseBase:
    if tag is not None:
        response.headers["ETag"] = tag
    # A cache may keep it, and asks each time whether it has changed.
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Vary"] = varies_by
    return response
