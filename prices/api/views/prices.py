"""Prices, averages and providers."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.errors import NOT_KEPT, problem_of
from prices.api.renderers import json_response
from prices.api.schema import prices as schema
from prices.api.schema.common import problems
from prices.api.serializers import (
    LatestBatchRequest,
    LatestRequest,
    NoQuery,
    validated,
)
from prices.clock import recent_now
from prices.latest.errors import LatestError
from prices.latest.services import Served, latest_prices
from providers.registry import PROVIDER_NAMES


class LatestView(APIView):
    """GET /prices/latest."""

    @extend_schema(
        operation_id="latest_price",
        parameters=[LatestBatchRequest, *schema.LATEST_HEADERS],
        responses={200: schema.LatestAnswer, **problems(400, 404, 429, 502, 503, 504)},
    )
    def get(self, request: Request) -> HttpResponse:
        """Return the freshest price of a symbol, from the named provider or any; or of each of `symbols`.

        Where none is named, those that are configured are asked in turn until one gives a price. Where
        that fails, a stored price that is fresh or delayed by its own time is given, with that time.

        `expand=quality` tells how old the price is by the provider's own time, whether that is fresh for
        its market, and which providers failed; `max_age` refuses an older one; `fetch=never` asks nobody,
        and gives the newest stored price of the last week.

        With `symbols` the answer is 200 with a list in their order, each a price or why there is none.
        """
        if "symbols" in request.query_params:
            return _latest_of_each(validated(LatestBatchRequest, request.query_params))
        query = validated(LatestRequest, request.query_params)
        served = _latest([query["symbol"]], query)[query["symbol"]]
        if isinstance(served, Exception):
            raise served
        now = recent_now()
        # An age, and that it is low enough, is true at this moment only.
        is_kept = all(query[name] is None for name in ("expand", "max_age", "fetch"))
        headers = answers.cache_headers(served.point, is_kept=is_kept, now=now)
        return json_response(answers.latest(served, expand=bool(query["expand"]), now=now), headers)


def _latest_of_each(query: Mapping[str, Any]) -> HttpResponse:
    found, now = _latest(query["symbols"], query), recent_now()
    results = [
        {"symbol": symbol, "problem": problem_of(served)}
        if isinstance(served, Exception)
        else answers.latest(served, expand=bool(query["expand"]), now=now)
        for symbol, served in ((symbol, found[symbol]) for symbol in query["symbols"])
    ]
    return json_response({"results": results}, NOT_KEPT)


def _latest(symbols: Sequence[str], query: Mapping[str, Any]) -> dict[str, Served | LatestError]:
    return latest_prices(
        symbols,
        query["provider"],
        now=recent_now(),
        max_age_s=query["max_age"],
        may_fetch=query["fetch"] is None,
    )


class ProvidersView(APIView):
    """GET /providers."""

    @extend_schema(operation_id="providers", responses={200: schema.ProvidersList, **problems(400, 503)})
    def get(self, request: Request) -> Response:
        """Return the providers: which have a key, which work, and what is left of their budgets."""
        validated(NoQuery, request.query_params)
        return Response({"results": [answers.provider(name) for name in PROVIDER_NAMES]})
