"""The views of a job's ledger: what became of its slots."""

from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.access.authentication import access_of
from prices.api.pagination import page, page_before
from prices.api.read_requests import GapsRequest, RunsRequest
from prices.api.renderers import time
from prices.api.schema import ledger as schema
from prices.api.schema.common import problems
from prices.api.serializers import validated
from prices.jobs.services import get_job
from prices.ledger.reports import missed_slots, runs_of
from prices.models import Scope

_JOB_ID = OpenApiParameter("job_id", UUID, OpenApiParameter.PATH)


class RunsView(APIView):
    """GET /jobs/{job_id}/runs."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="runs",
        parameters=[_JOB_ID, RunsRequest],
        responses={200: schema.RunsPage, **problems(400, 404)},
    )
    def get(self, request: Request, job_id: str) -> Response:
        """Return the slots of a job that were claimed by a worker, and what became of each, newest first.

        Runs are kept for 7 days. Slots that nobody claimed are in /jobs/{job_id}/gaps.
        """
        query = validated(RunsRequest, request.query_params)
        job = get_job(UUID(job_id), access_of(request))
        runs = runs_of(job, since=query["since"], until=query["until"], states=query["state"])
        return page(request, query, runs, answers.run)


class GapsView(APIView):
    """GET /jobs/{job_id}/gaps."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="gaps",
        parameters=[_JOB_ID, GapsRequest],
        responses={200: schema.GapsPage, **problems(400, 404)},
    )
    def get(self, request: Request, job_id: str) -> Response:
        """Return which slots of a job got no price and why, as ranges of time without overlap, newest first.

        A range is consecutive slots with the same reason: slots that nobody polled, slots at which the
        markets of a job with `market_hours` were closed, runs that failed, or runs that were skipped. Ranges
        are cut to `since` and `until`, which are at most 7 days apart; left out, they are the last 24 hours.
        Gaps are kept for good, runs for 7 days. What happened in the last minute may not be noted yet.
        """
        query = validated(GapsRequest, request.query_params)
        limit, since = query["limit"], query["since"]
        job = get_job(UUID(job_id), access_of(request))
        found = missed_slots(job, since=since, until=query["until"], limit=limit + 1)
        rows = [answers.missed_range(each) for each in found[:limit]]
        more = len(found) > limit
        # Times, not an id: the list is merged from two tables. Without `since` the window would move on.
        following = {"since": str(time(since)), "until": rows[-1]["from"]} if more else None
        return page_before(request, rows, following)
