"""Rows as they were received: a page of JSON, or a file of any length."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from prices.api.conditional import request_tag
from prices.api.pagination import next_address
from prices.api.read_requests import DEFAULT_ROWS, cursor_of
from prices.database.queries import Fetch, fetch
from prices.history.columns import csv_line, json_line
from prices.history.download import csv_form, download, ndjson_form
from prices.history.query import read_page, read_version
from prices.history.tables import Table

JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"
# By which headers one of these is chosen, packed or not.
BY_FORM = "Accept, Accept-Encoding"
_TYPES = {"json": JSON, "csv": CSV, "ndjson": NDJSON}


def rows_response(
    request: Request, table: Table, asked: Mapping[str, Any], *, now: datetime
) -> HttpResponseBase:
    """Answer what a RowsRequest asks for, in the form that it names, or that `Accept` prefers."""
    media_type = _media_type(request, asked)
    if media_type == JSON:
        return _page(request, table, asked, now=now)
    return _file(request, table, asked, media_type, now=now)


def rows_tag(
    request: Request, table: Table, asked: Mapping[str, Any], fetch: Fetch, *, now: datetime
) -> str | None:
    """Return the tag of that answer; None of a file of all rows, which would begin after a look at all."""
    media_type = _media_type(request, asked)
    limit = asked["limit"] or (DEFAULT_ROWS if media_type == JSON else None)
    if limit is None:
        return None
    version = read_version(table, asked["query"], fetch, limit=limit, now=now)
    return row_tag(request, media_type, _line(table, asked["numbers"], media_type), version)


def row_tag(request: Request, media_type: str, line: str, version: str) -> str:
    """Return the tag of rows of this version in a form, each written by the SQL of `line`."""
    # The line, too: it tells in which columns and how.
    return request_tag(request, media_type, line, version)


def _media_type(request: Request, asked: Mapping[str, Any]) -> str:
    form: str | None = asked["format"]
    return _TYPES[form] if form else _preferred(request.META.get("HTTP_ACCEPT", "*/*"))


@lru_cache(maxsize=256)
def _preferred(accept: str) -> str:
    request = HttpRequest()
    request.META["HTTP_ACCEPT"] = accept
    # Who takes nothing of that is given JSON, as everywhere.
    return request.get_preferred_type([JSON, CSV, NDJSON]) or JSON


def _line(table: Table, numbers: str, media_type: str) -> str:
    return csv_line(table.columns) if media_type == CSV else json_row(table, numbers)


@lru_cache
def json_row(table: Table, numbers: str) -> str:
    """Return the SQL of a row as JSON; `numbers`: whether its prices are to be a `number` or a `string`."""
    return json_line(table.columns, prices_as_text=numbers == "string")


def _page(request: Request, table: Table, asked: Mapping[str, Any], *, now: datetime) -> HttpResponse:
    line = json_row(table, asked["numbers"])
    limit = asked["limit"] or DEFAULT_ROWS
    page = read_page(table, asked["query"], line, limit=limit, separator=",", now=now)
    following = None if page.after is None else next_address(request, cursor=cursor_of(page.after))
    return HttpResponse(
        b'{"results":[%b],"next":%b}' % (page.text.encode(), msgspec.json.encode(following)),
        content_type=JSON,
        headers={"ETag": row_tag(request, JSON, line, page.version)},
    )


def _file(
    request: Request, table: Table, asked: Mapping[str, Any], media_type: str, *, now: datetime
) -> StreamingHttpResponse:
    if media_type == CSV:
        form, name = csv_form(table), f"{table.name}.csv"
    else:
        form, name = ndjson_form(table, prices_as_text=asked["numbers"] == "string"), f"{table.name}.ndjson"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    # Before its rows are read: of those that change meanwhile it is no tag.
    tag = rows_tag(request, table, asked, fetch, now=now)
    if tag is not None:
        headers["ETag"] = tag
    pieces = download(table, asked["query"], form, limit=asked["limit"], now=now)
    # The first one now: what cannot be read is a problem, not a file that ends.
    return StreamingHttpResponse(chain([next(pieces)], pieces), content_type=media_type, headers=headers)
