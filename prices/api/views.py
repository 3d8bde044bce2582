"""The views: one call each."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api import schema
from prices.api.pagination import page, page_of
from prices.api.renderers import json_response
from prices.api.serializers import (
    AveragesRequest,
    ChangeRequest,
    LatestRequest,
    NoQuery,
    PageRequest,
    PollQuery,
    PollRequest,
    StopRequest,
    validated,
)
from prices.clock import database_now, recent_now
from prices.database.newest import newest_rows
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at
from prices.jobs.services import get_job, stop_job
from prices.latest.services import latest_price, refuse_older
from prices.ledger.reports import count_last_day
from prices.models import PollJob, SymbolAverage
from prices.quota import Target, change_planned_interval, create_planned_job, plan_of_active
from providers.registry import PROVIDER_NAMES

_JOB_ID = OpenApiParameter("job_id", UUID, OpenApiParameter.PATH)


class LatestView(APIView):
    """GET /prices/latest."""

    @extend_schema(
        operation_id="latest_price",
        parameters=[LatestRequest, *schema.LATEST_HEADERS],
        responses={200: schema.Latest, **schema.problems(400, 404, 429, 502, 503, 504)},
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


class PollView(APIView):
    """POST /prices/poll."""

    @extend_schema(
        operation_id="poll_prices",
        request=PollRequest,
        parameters=[PollQuery, schema.QUOTA_PLAN_HEADER],
        responses={202: schema.Accepted, **schema.problems(400, 408, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Create a job that polls the symbols each `interval` seconds.

        A job that the provider's budget does not carry in full is accepted too; the header `Quota-Plan`
        tells what it gets. With `strict=true` it is refused, and so is one whose provider has no key.
        """
        strict = validated(PollQuery, request.query_params)["strict"]
        target = Target(**validated(PollRequest, request.data))
        job, plan = create_planned_job(target, strict=strict, now=database_now())
        headers = {"Quota-Plan": answers.quota_plan_header(plan)}
        return Response(answers.accepted(job), status=202, headers=headers)


class StopView(APIView):
    """POST /prices/stop."""

    @extend_schema(
        operation_id="stop_polling",
        request=StopRequest,
        responses={200: schema.Stopped, **schema.problems(400, 404, 408, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """End a job for good. Once this is answered, no fetch starts for it."""
        validated(NoQuery, request.query_params)
        job = stop_job(validated(StopRequest, request.data)["job_id"])
        return Response(answers.stopped(job))


class AveragesView(APIView):
    """GET /averages."""

    @extend_schema(
        operation_id="averages",
        parameters=[AveragesRequest],
        responses={200: schema.AveragesPage, **schema.problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Return the 5-point moving averages, newest first; null before a symbol's fifth point."""
        query = validated(AveragesRequest, request.query_params)
        # Ids of a time to come are of a clock that was ahead: what they say is older than it looks.
        known = first_id_at(database_now() + CLOCKS_AGREE_WITHIN)
        before = min(known, query["before"] or known)
        averages = SymbolAverage.objects.filter(event_id__lt=before)
        if query["symbol"]:
            averages = averages.filter(symbol=query["symbol"])
        found = newest_rows(averages, key="event_id", around=before, limit=query["limit"] + 1)
        return page_of(request, query, found, answers.average, key="event_id")


class JobsView(APIView):
    """GET /jobs."""

    @extend_schema(
        operation_id="jobs",
        parameters=[PageRequest],
        responses={200: schema.JobsPage, **schema.problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Return the jobs, newest first."""
        query = validated(PageRequest, request.query_params)
        now = database_now()
        jobs = PollJob.objects.select_related("periodic_task")
        return page(request, query, jobs, lambda row: answers.job(row, plan_of_active(row, now=now)))


class JobView(APIView):
    """GET and PATCH /jobs/{job_id}."""

    @extend_schema(
        operation_id="job",
        parameters=[_JOB_ID],
        responses={200: schema.JobDetail, **schema.problems(400, 404)},
    )
    def get(self, request: Request, job_id: str) -> Response:
        """Return a job, how its polls went, what keeps it from polling, and what the budget gives it."""
        validated(NoQuery, request.query_params)
        return Response(_detail_of(get_job(UUID(job_id)), fresh=False))

    @extend_schema(
        operation_id="change_job",
        request=ChangeRequest,
        parameters=[_JOB_ID, PollQuery],
        responses={200: schema.JobDetail, **schema.problems(400, 404, 408, 409, 413, 415, 422)},
    )
    def patch(self, request: Request, job_id: str) -> Response:
        """Change how often a job polls, beginning with the first slot of the new interval.

        With `strict=true` a shorter interval is refused where the budget does not carry it in full.
        """
        strict = validated(PollQuery, request.query_params)["strict"]
        interval = validated(ChangeRequest, request.data)["interval"]
        job = change_planned_interval(UUID(job_id), interval, strict=strict, now=database_now())
        return Response(_detail_of(job, fresh=True))


class ProvidersView(APIView):
    """GET /providers."""

    @extend_schema(
        operation_id="providers", responses={200: schema.ProvidersList, **schema.problems(400, 503)}
    )
    def get(self, request: Request) -> Response:
        """Return the providers: which have a key, which work, and what is left of their budgets."""
        validated(NoQuery, request.query_params)
        return Response({"results": [answers.provider(name) for name in PROVIDER_NAMES]})


def _detail_of(job: PollJob, *, fresh: bool) -> dict[str, Any]:
    now = database_now()
    return answers.job_detail(job, plan_of_active(job, now=now, fresh=fresh), count_last_day(job, now=now))
