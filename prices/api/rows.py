"""Rows as they were received: a page of JSON, or a file of any length."""

from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from prices.api.pagination import next_address
from prices.api.read_requests import DEFAULT_ROWS, cursor_of
from prices.history.columns import json_line
from prices.history.download import csv_form, download, ndjson_form
from prices.history.query import read_page
from prices.history.tables import Table

JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"
_TYPES = {"json": JSON, "csv": CSV, "ndjson": NDJSON}


def rows_response(
    request: Request, table: Table, asked: Mapping[str, Any], *, now: datetime
) -> HttpResponseBase:
    """Answer what a RowsRequest asks for, in the form that it names, or that `Accept` prefers."""
    media_type = _TYPES[asked["format"]] if asked["format"] else _preferred(request)
    if media_type == JSON:
        response: HttpResponseBase = _page(request, table, asked, now=now)
    else:
        response = _file(table, asked, media_type, now=now)
    response["Vary"] = "Accept"
    return response


def _preferred(request: Request) -> str:
    # Who takes nothing of that is given JSON, as everywhere.
    return request._request.get_preferred_type([JSON, CSV, NDJSON]) or JSON


def _page(request: Request, table: Table, asked: Mapping[str, Any], *, now: datetime) -> HttpResponse:
    line = json_line(table.columns, prices_as_text=asked["numbers"] == "string")
    limit = asked["limit"] or DEFAULT_ROWS
    page = read_page(table, asked["query"], line, limit=limit, separator=",", now=now)
    following = None if page.after is None else next_address(request, cursor=cursor_of(page.after))
    return HttpResponse(
        b'{"results":[%b],"next":%b}' % (page.text.encode(), msgspec.json.encode(following)),
        content_type=JSON,
    )


def _file(table: Table, asked: Mapping[str, Any], media_type: str, *, now: datetime) -> StreamingHttpResponse:
    if media_type == CSV:
        form, name = csv_form(table), f"{table.name}.csv"
    else:
        form, name = ndjson_form(table, prices_as_text=asked["numbers"] == "string"), f"{table.name}.ndjson"
    pieces = download(table, asked["query"], form, limit=asked["limit"], now=now)
    # The first one now: what cannot be read is a problem, not a file that ends.
    return StreamingHttpResponse(
        chain([next(pieces)], pieces),
        content_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
