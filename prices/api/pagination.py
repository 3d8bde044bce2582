"""Pages of lists: as many rows as asked for, and the address of the next ones."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from prices.api import responses as answers

_Row = TypeVar("_Row", bound=Model)


def page(
    request: Request,
    query: Mapping[str, Any],
    rows: QuerySet[_Row],
    as_json: Callable[[_Row], dict[str, Any]],
) -> Response:
    """Answer the rows with the highest ids before `query["before"]`, as many as its limit says."""
    if query["before"] is not None:
        rows = rows.filter(id__lt=query["before"])
    # One row more tells that there is a next page.
    limit = query["limit"]
    found = list(rows.order_by("-id")[: limit + 1])
    following = {"before": str(found[limit - 1].pk)} if len(found) > limit else None
    return page_before(request, [as_json(row) for row in found[:limit]], following)


def page_before(request: Request, rows: list[dict[str, Any]], following: dict[str, str] | None) -> Response:
    """Answer a page; `following` is what the query of the next one says, None where there is none."""
    next_page = None if following is None else next_address(request, **following)
    return Response({"results": rows, "next": next_page})


def next_address(request: Request, **values: str) -> str:
    """Return the address of the request with these values in its query."""
    return answers.with_query(request.build_absolute_uri(), **values)
