"""Pages of lists: as many rows as asked for, and the address of the next ones."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from prices.api import responses as answers


def page(request: Request, rows: list[dict[str, Any]], id_name: str) -> Response:
    """Answer a page of which one row more than asked for was read: it tells that there is a next page."""
    limit = int(request.query_params.get("limit", 100))
    following = {"before": rows[limit - 1][id_name]} if len(rows) > limit else None
    return page_before(request, rows[:limit], following)


def page_before(request: Request, rows: list[dict[str, Any]], following: dict[str, str] | None) -> Response:
    """Answer a page; `following` is what the query of the next one says, None where there is none."""
    address = request.build_absolute_uri()
    next_page = None if following is None else answers.with_query(address, **following)
    return Response({"results": rows, "next": next_page})
