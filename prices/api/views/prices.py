"""Prices, averages and providers."""

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.renderers import json_response
from prices.api.schema import prices as schema
from prices.api.schema.common import problems
from prices.api.serializers import (
    LatestRequest,
    NoQuery,
    validated,
)
from prices.clock import recent_now
from prices.latest.services import latest_price, refuse_older
from providers.registry import PROVIDER_NAMES


class LatestView(APIView):
    """GET /prices/latest."""

    @extend_schema(
        operation_id="latest_price",
        parameters=[LatestRequest, *schema.LATEST_HEADERS],
        responses={200: schema.Latest, **problems(400, 404, 429, 502, 503, 504)},
    )
    def get(self, request: Request) -> HttpResponse:
        """Return the freshest price of a symbol, from the named provider or any.

        Where none is named, those that are configured are asked in turn until one gives a price. Where
        that fails, a stored price that is fresh or delayed by its own time is given, with that time.

        `expand=quality` tells how old the price is by the provider's own time, whether that is fresh for
        its market, and which providers failed; `max_age` refuses an older one.
        """
        query = validated(LatestRequest, request.query_params)
        served = latest_price(
            query["symbol"], query["provider"], now=recent_now(), max_age_s=query["max_age"]
        )
        now = recent_now()
        refuse_older(served, query["max_age"], now=now)
        body = answers.latest(served.point)
        if query["expand"]:
            body |= answers.quality(served.point, now=now) | {"attempts": answers.attempts(served.failures)}
        # An age, and that it is low enough, is true at this moment only.
        is_kept = query["expand"] is None and query["max_age"] is None
        return json_response(body, answers.cache_headers(served.point, is_kept=is_kept, now=now))


class ProvidersView(APIView):
    """GET /providers."""

    @extend_schema(operation_id="providers", responses={200: schema.ProvidersList, **problems(400, 503)})
    def get(self, request: Request) -> Response:
        """Return the providers: which have a key, which work, and what is left of their budgets."""
        validated(NoQuery, request.query_params)
        return Response({"results": [answers.provider(name) for name in PROVIDER_NAMES]})
