"""The symbols that are known."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.access.authentication import access_of
from prices.api.pagination import page_before
from prices.api.read_requests import SymbolsRequest
from prices.api.schema import symbols as schema
from prices.api.schema.common import problems
from prices.api.serializers import validated
from prices.clock import recent_now
from prices.latest.known_symbols import known_symbols


class SymbolsView(APIView):
    """GET /symbols."""

    @extend_schema(
        operation_id="symbols",
        parameters=[SymbolsRequest],
        responses={200: schema.SymbolsPage, **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Return the symbols that are known, in their order, with who polls them and their last price.

        Those of active and paused jobs, and those that had a price in the last 7 days; what is told of prices
        and averages is of that time. `q` chooses those that contain it, in any case.
        """
        query = validated(SymbolsRequest, request.query_params)
        limit, now = query["limit"], recent_now()
        # One more tells that there is a next page.
        found = known_symbols(
            part=query["q"], after=query["cursor"], limit=limit + 1, now=now, access=access_of(request)
        )
        following = {"cursor": found[limit - 1].symbol} if len(found) > limit else None
        return page_before(
            request, [answers.known_symbol(each, now=now) for each in found[:limit]], following
        )
