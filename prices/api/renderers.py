"""JSON out: decimals keep their digits, times end in Z."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from django.http import HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from prices.publishing.events import json_number

encode_json = msgspec.json.Encoder().encode


def number(value: Decimal | None) -> msgspec.Raw | None:
    """Return a decimal as it is to stand in an answer: a JSON number with its own digits."""
    return None if value is None else json_number(value)


def time(value: datetime | None) -> str | None:
    """Return a time as it is to stand in an answer: UTC, ending in Z."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def json_response(data: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return an answer of plain data, and numbers made by `number`.

    A plain one: DRF's own, which renders itself later, takes three times as long.
    """
    return HttpResponse(encode_json(data), content_type=ExactJSONRenderer.media_type, headers=headers)


class ExactJSONRenderer(BaseRenderer):
    """Render plain data, and numbers made by `number`, as JSON."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the bytes of the answer's body."""
        return encode_json(data)


class AlwaysJSON(BaseContentNegotiation):
    """Answer with JSON whatever the Accept header asks for: there is nothing else."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the parser of the request's content type, or None: 415."""
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        """Return the only renderer."""
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or ""
