"""What a client of the stream sends: read, checked, and answered with a problem where it cannot be used."""

from io import BytesIO
from typing import Any, NamedTuple

from django.contrib.auth import get_user
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AbstractUser
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from prices.access.keys import find_key
from prices.access.rights import needs_keys
from prices.api.access.authentication import KeyAuthentication, KeyRequiredError, access_of, sent_key
from prices.api.fields import StrictField, SymbolListField, WordField
from prices.api.serializers import validated
from prices.models.api_client import Scope
from prices.stream.clients import Wish
from prices.stream.positions import Cursor, Position, parse_cursor

ALL_SYMBOLS = "*"
# As many as the overview has rows: a browser has six connections to a host, for all of its tabs.
MOST_SYMBOLS = 500


class _SymbolsField(SymbolListField):
    """Symbols, or all of them."""

    def __init__(self) -> None:
        super().__init__(most=MOST_SYMBOLS)
        self.allowed = f"{self.allowed}; or {ALL_SYMBOLS}, for a key of the scope admin"

    def to_internal_value(self, data: Any) -> Any:
        """Return the symbols; None for all."""
        return None if data == ALL_SYMBOLS else super().to_internal_value(data)


class _CursorField(StrictField[Cursor]):
    """Where to go on."""

    def __init__(self) -> None:
        super().__init__("an id of the stream", schema={"type": "string"}, required=False, default=None)

    def to_internal_value(self, data: Any) -> Cursor:
        """Return the cursor."""
        cursor = parse_cursor(str(data))
        if cursor is None:
            raise serializers.ValidationError("is no id of the stream")
        return cursor


class _StreamRequest(serializers.Serializer[Any]):
    symbols = _SymbolsField()
    since = _CursorField()

    def get_fields(self) -> dict[str, Any]:
        """Return the fields; the name of one is a word of Python."""
        return super().get_fields() | {"from": WordField("now", required=False, default=None)}


# Of no database: its client begins anew.
_UNKNOWN = Cursor("", Position(0))


class Opened(NamedTuple):
    """What a client asks for, and with which key or session; None where nobody needs one."""

    wish: Wish
    credential: "Credential | None"


class Credential(NamedTuple):
    """A key, or the cookie of a session."""

    key: str | None
    session: str | None

    def check(self) -> None:
        """Raise InvalidKeyError or KeyRequiredError where it opens nothing any more."""
        if self.key is not None:
            find_key(self.key)
            return
        request = HttpRequest()
        request.session = SessionStore(self.session)
        user = get_user(request)
        if not (user.is_active and isinstance(user, AbstractUser) and user.is_staff):
            raise KeyRequiredError


def django_request(scope: Any) -> HttpRequest:
    """Return a request as Django's views have it, with its session and user."""
    request = ASGIRequest(scope, BytesIO())
    SessionMiddleware(_no_view).process_request(request)
    AuthenticationMiddleware(_no_view).process_request(request)
    return request


def open_request(request: HttpRequest) -> Opened:
    """Return what the request asks for. Raises the errors of prices/api/problems.py."""
    rest = Request(request)
    rest.user, rest.auth = KeyAuthentication().authenticate(rest)
    access_of(rest).require(Scope.READ)
    values = validated(_StreamRequest, request.GET)
    if values["symbols"] is None:
        access_of(rest).require(Scope.ADMIN)
    last_seen = request.META.get("HTTP_LAST_EVENT_ID")
    # A browser that comes back sends the first address again, and where it is in the header.
    cursor = (parse_cursor(last_seen) or _UNKNOWN) if last_seen else values["since"]
    wish = Wish(values["symbols"], cursor, is_without_snapshot=values["from"] == "now")
    return Opened(wish, _credential(request) if needs_keys() else None)


def _credential(request: HttpRequest) -> Credential:
    key = sent_key(request)
    return Credential(key, None if key is not None else request.session.session_key)


def _no_view(_request: HttpRequest) -> HttpResponse:
    raise AssertionError("there is no view")
