"""Points and averages as they were received."""

from collections.abc import Mapping
from typing import Any

import msgspec
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.conditional import conditional, request_tag
from prices.api.errors import problem_of
from prices.api.pagination import next_address
from prices.api.read_requests import AveragesRequest, BarsRequest, HistoryRequest, NewestAveragesRequest
from prices.api.renderers import json_response, time
from prices.api.rows import BY_FORM, JSON, json_row, row_tag, rows_response, rows_tag
from prices.api.schema import history as schema
from prices.api.schema.common import NOT_MODIFIED, TAG_HEADERS, problems
from prices.api.serializers import validated, validated_query
from prices.bars.reading import bars_version, read_bars
from prices.clock import recent_now
from prices.database.queries import fetch_prepared
from prices.history.errors import NoAverageError
from prices.history.newest_averages import NewestAverage, newest_averages, newest_versions, version_of
from prices.history.tables import AVERAGES, AVERAGES_WITH_INPUTS, POINTS, Table


def _history_tag(request: Request) -> str | None:
    query = validated_query(HistoryRequest, request)
    return rows_tag(request, POINTS, query, fetch_prepared, now=recent_now())


def _averages_tag(request: Request) -> str | None:
    query = validated_query(AveragesRequest, request)
    return rows_tag(request, _averages_of(query), query, fetch_prepared, now=recent_now())


def _newest_tag(request: Request) -> str:
    query = validated_query(NewestAveragesRequest, request)
    table = _averages_of(query)
    version = newest_versions(query["symbols"], table, fetch_prepared, now=recent_now())
    return row_tag(request, JSON, json_row(table, query["numbers"]), version)


def _bars_tag(request: Request) -> str | None:
    version = bars_version(**_bars_asked(request), now=recent_now())
    return None if version is None else request_tag(request, version)


class HistoryView(APIView):
    """GET /prices/history."""

    @extend_schema(
        operation_id="price_history",
        parameters=[HistoryRequest, *TAG_HEADERS],
        responses={
            200: schema.HistoryPage,
            **schema.files("event_id,symbol,provider,price"),
            **NOT_MODIFIED,
            **problems(400),
        },
    )
    @conditional(_history_tag, varies_by=BY_FORM)
    def get(self, request: Request) -> HttpResponseBase:
        """Return the stored prices, newest first; with `symbols` those of the first one come first.

        A page of JSON has `limit` rows, 1,000 where that is left out, and in `next` the address of the next
        one. CSV and newline-delimited JSON have all rows where `limit` is left out.
        """
        query = validated_query(HistoryRequest, request)
        return rows_response(request, POINTS, query, now=recent_now())


class AveragesView(APIView):
    """GET /averages."""

    @extend_schema(
        operation_id="averages",
        parameters=[AveragesRequest, *TAG_HEADERS],
        responses={
            200: schema.AveragesPage,
            **schema.files("event_id,symbol,price,currency"),
            **NOT_MODIFIED,
            **problems(400),
        },
    )
    @conditional(_averages_tag, varies_by=BY_FORM)
    def get(self, request: Request) -> HttpResponseBase:
        """Return the 5-point moving averages, in the order of /prices/history; null before the fifth point.

        `since` and `until` are of the receipt of the point. `expand=inputs` tells the points of each window.
        """
        query = validated_query(AveragesRequest, request)
        return rows_response(request, _averages_of(query), query, now=recent_now())


class BarsView(APIView):
    """GET /prices/bars."""

    @extend_schema(
        operation_id="bars",
        parameters=[BarsRequest, *TAG_HEADERS],
        responses={200: schema.BarsPage, **NOT_MODIFIED, **problems(400)},
    )
    @conditional(_bars_tag)
    def get(self, request: Request) -> HttpResponse:
        """Return open, high, low and close of a symbol's prices in intervals, by the provider's times.

        They are samples of quotes and not trades, so there is no volume. Each bar is of one provider and one
        currency: of the named provider, or of the first of PROVIDER_ORDER that has samples in it. Days are
        those of the listing's exchange. Where `since` is left out it is `limit` intervals before `until`.
        """
        query = _bars_asked(request)
        # Before the bars are read: of those that change meanwhile it is no tag.
        tag = _bars_tag(request)
        bars = read_bars(**query, now=recent_now())
        starts = list(dict.fromkeys(bar.start for bar in bars))
        following = starts[-1] if len(starts) == query["limit"] else None
        return json_response(
            {
                "symbol": query["symbol"],
                "interval": query["interval"],
                "kind": "samples of quotes, not trades: there is no volume",
                "results": [answers.bar(bar) for bar in bars if bar.start != following],
                "next": following and next_address(request, since=str(time(following))),
            },
            {} if tag is None else {"ETag": tag},
        )


def _bars_asked(request: Request) -> dict[str, Any]:
    query = validated(BarsRequest, request.query_params)
    # One more tells where the next page begins.
    return query | {"limit": query["limit"] + 1}


class NewestAveragesView(APIView):
    """GET /averages/latest."""

    @extend_schema(
        operation_id="newest_averages",
        parameters=[NewestAveragesRequest, *TAG_HEADERS],
        responses={200: schema.NewestAverages, **NOT_MODIFIED, **problems(400)},
    )
    @conditional(_newest_tag)
    def get(self, request: Request) -> HttpResponse:
        """Return the newest average of each symbol, in the order asked for, or why there is none.

        Each symbol has one entry. Its `averages` hold one for each currency of which it had a price in the
        last 32 days, the newest first; where it had none for so long, the newest that there is. An average is
        null before the fifth point, as in /averages.
        """
        query = validated_query(NewestAveragesRequest, request)
        table, line = _averages_of(query), json_row(_averages_of(query), query["numbers"])
        found = newest_averages(query["symbols"], table, line, now=recent_now())
        results = [_newest_of(symbol, found.get(symbol)) for symbol in query["symbols"]]
        return json_response({"results": results}, {"ETag": row_tag(request, JSON, line, version_of(found))})


def _averages_of(query: Mapping[str, Any]) -> Table:
    return AVERAGES_WITH_INPUTS if query["expand"] else AVERAGES


def _newest_of(symbol: str, rows: list[NewestAverage] | None) -> dict[str, Any]:
    if rows is None:
        return {"symbol": symbol, "problem": problem_of(NoAverageError(symbol))}
    return {"symbol": symbol, "averages": [msgspec.Raw(row.text.encode()) for row in rows]}
