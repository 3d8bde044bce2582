"""Points and averages as they were received."""

from typing import Any

import msgspec
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.errors import NOT_KEPT, problem_of
from prices.api.pagination import next_address
from prices.api.read_requests import AveragesRequest, BarsRequest, HistoryRequest, NewestAveragesRequest
from prices.api.renderers import json_response, time
from prices.api.rows import rows_response
from prices.api.schema import history as schema
from prices.api.schema.common import problems
from prices.api.serializers import validated
from prices.bars.reading import read_bars
from prices.clock import recent_now
from prices.history.columns import json_line
from prices.history.errors import NoAverageError
from prices.history.newest_averages import newest_averages
from prices.history.tables import AVERAGES, AVERAGES_WITH_INPUTS, POINTS


class HistoryView(APIView):
    """GET /prices/history."""

    @extend_schema(
        operation_id="price_history",
        parameters=[HistoryRequest],
        responses={
            200: schema.HistoryPage,
            **schema.files("event_id,symbol,provider,price"),
            **problems(400),
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Return the stored prices, newest first; with `symbols` those of the first one come first.

        A page of JSON has `limit` rows, 1,000 where that is left out, and in `next` the address of the next
        one. CSV and newline-delimited JSON have all rows where `limit` is left out.
        """
        query = validated(HistoryRequest, request.query_params)
        return rows_response(request, POINTS, query, now=recent_now())


class AveragesView(APIView):
    """GET /averages."""

    @extend_schema(
        operation_id="averages",
        parameters=[AveragesRequest],
        responses={
            200: schema.AveragesPage,
            **schema.files("event_id,symbol,price,currency"),
            **problems(400),
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Return the 5-point moving averages, in the order of /prices/history; null before the fifth point.

        `since` and `until` are of the receipt of the point. `expand=inputs` tells the points of each window.
        """
        query = validated(AveragesRequest, request.query_params)
        table = AVERAGES_WITH_INPUTS if query["expand"] else AVERAGES
        return rows_response(request, table, query, now=recent_now())


class BarsView(APIView):
    """GET /prices/bars."""

    @extend_schema(
        operation_id="bars",
        parameters=[BarsRequest],
        responses={200: schema.BarsPage, **problems(400)},
    )
    def get(self, request: Request) -> HttpResponse:
        """Return open, high, low and close of a symbol's prices in intervals, by the provider's times.

        They are samples of quotes and not trades, so there is no volume. Each bar is of one provider and one
        currency: of the named provider, or of the first of PROVIDER_ORDER that has samples in it. Days are
        those of the listing's exchange. Where `since` is left out it is `limit` intervals before `until`.
        """
        query = validated(BarsRequest, request.query_params)
        # One more tells where the next page begins.
        bars = read_bars(**query | {"limit": query["limit"] + 1}, now=recent_now())
        starts = list(dict.fromkeys(bar.start for bar in bars))
        following = starts[query["limit"]] if len(starts) > query["limit"] else None
        return json_response(
            {
                "symbol": query["symbol"],
                "interval": query["interval"],
                "kind": "samples of quotes, not trades: there is no volume",
                "results": [answers.bar(bar) for bar in bars if bar.start != following],
                "next": following and next_address(request, since=str(time(following))),
            }
        )


class NewestAveragesView(APIView):
    """GET /averages/latest."""

    @extend_schema(
        operation_id="newest_averages",
        parameters=[NewestAveragesRequest],
        responses={200: schema.NewestAverages, **problems(400)},
    )
    def get(self, request: Request) -> HttpResponse:
        """Return the newest average of each symbol, in the order asked for, or why there is none.

        Each symbol has one entry. Its `averages` hold one for each currency of which it had a price in the
        last 32 days, the newest first; where it had none for so long, the newest that there is. An average is
        null before the fifth point, as in /averages.
        """
        query = validated(NewestAveragesRequest, request.query_params)
        table = AVERAGES_WITH_INPUTS if query["expand"] else AVERAGES
        line = json_line(table.columns, prices_as_text=query["numbers"] == "string")
        found = newest_averages(query["symbols"], line, now=recent_now())
        results = [_newest_of(symbol, found.get(symbol)) for symbol in query["symbols"]]
        return json_response({"results": results}, NOT_KEPT)


def _newest_of(symbol: str, rows: list[str] | None) -> dict[str, Any]:
    if rows is None:
        return {"symbol": symbol, "problem": problem_of(NoAverageError(symbol))}
    return {"symbol": symbol, "averages": [msgspec.Raw(row.encode()) for row in rows]}
