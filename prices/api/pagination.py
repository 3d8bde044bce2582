"""Pages of lists: as many rows as asked for, and the address of the next ones."""

from collections.abc import Callable, Mapping, Sequence
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
    found = list(rows.order_by("-id")[: query["limit"] + 1])
    return page_of(request, query, found, as_json, key="id")


def page_of(
    request: Request,
    query: Mapping[str, Any],
    found: Sequence[_Row],
    as_json: Callable[[_Row], dict[str, Any]],
    *,
    key: str,
) -> Response:
    """Answer a page of rows that were found, newest first; one more than the limit is of the next page."""
    limit = query["limit"]
    following = {"before": str(getattr(found[limit - 1], key))} if len(found) > limit else None
    return page_before(request, [as_json(row) for row in found[:limit]], following)


def page_before(request: Request, rows: list[dict[str, Any]], following: dict[str, str] | None) -> Response:
    """Answer a page; `following` is what the query of the next one says, None where there is none."""
    address = request.build_absolute_uri()
    next_page = None if following is None else answers.with_query(address, **following)
    return Response({"results": rows, "next": next_page})
