"""Jobs: created, read, changed, paused, resumed, stopped, deleted."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.access.authentication import access_of
from prices.api.idempotency import key_of
from prices.api.pagination import page
from prices.api.schema import jobs as schema
from prices.api.schema.common import problems
from prices.api.serializers import (
    ChangeRequest,
    JobsRequest,
    NoBody,
    NoQuery,
    PollQuery,
    PollRequest,
    StopRequest,
    validated,
)
from prices.clock import database_now, recent_now
from prices.jobs.idempotency import Answer, answer_once
from prices.jobs.listing import select_jobs
from prices.jobs.services import delete_job, get_job, pause_job, resume_job, stop_job
from prices.ledger.reports import count_last_day
from prices.models import PollJob, Scope
from prices.quota import Target, change_planned_job, create_planned_job, plan_of_active

_JOB_ID = OpenApiParameter("job_id", UUID, OpenApiParameter.PATH)


class PollView(APIView):
    """POST /prices/poll."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="poll_prices",
        request=PollRequest,
        parameters=[PollQuery, schema.IDEMPOTENCY_KEY, schema.QUOTA_PLAN_HEADER, schema.LOCATION_HEADER],
        responses={202: schema.Accepted, **problems(400, 408, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Create a job that polls the symbols each `interval` seconds.

        A job that the provider's budget does not carry in full is accepted too; the header `Quota-Plan`
        tells what it gets. With `strict=true` it is refused, and so is one whose provider has no key.

        With `market_hours` each symbol is polled while its market is open, for an hour after the close, and
        once after that hour; and at any hour until the first price. One whose market always trades, or in
        hours that are not known, is polled always.
        """
        strict = validated(PollQuery, request.query_params)["strict"]
        target = Target(**validated(PollRequest, request.data))
        key, now = key_of(request), database_now()
        client_id = access_of(request).client_id
        accept = partial(_accept, target, strict=strict, client_id=client_id, now=now)
        asked = target._asdict() | {"strict": strict}
        if not target.market_hours:
            # As requests were before there was such a field: one that is sent again is the same request.
            del asked["market_hours"]
        answer = accept() if key is None else answer_once(key, asked, accept, now=now)
        return Response(answer.body, status=202, headers=answer.headers)


def _accept(target: Target, *, strict: bool, client_id: UUID | None, now: datetime) -> Answer:
    job, plan = create_planned_job(target, strict=strict, client_id=client_id, now=now)
    headers = {
        "Quota-Plan": answers.quota_plan_header(plan),
        "Location": reverse("job", kwargs={"job_id": job.id}),
    }
    return Answer(answers.accepted(job), headers)


class StopView(APIView):
    """POST /prices/stop."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="stop_polling",
        request=StopRequest,
        responses={200: schema.Stopped, **problems(400, 404, 408, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """End a job for good. Once this is answered, no fetch starts for it."""
        validated(NoQuery, request.query_params)
        job = stop_job(_own(validated(StopRequest, request.data)["job_id"], request))
        return Response(answers.stopped(job))


class JobsView(APIView):
    """GET /jobs."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="jobs",
        parameters=[JobsRequest],
        responses={200: schema.JobsPage, **problems(400)},
    )
    def get(self, request: Request) -> Response:
        """Return the jobs, newest first: all of them, or those of a status, a provider and a symbol.

        `provider` finds the jobs that name it, and of those that name none the ones that it served last.
        """
        query = validated(JobsRequest, request.query_params)
        now = recent_now()
        jobs = select_jobs(
            statuses=query["status"],
            provider=query["provider"],
            symbol=query["symbol"],
            access=access_of(request),
        )
        return page(request, query, jobs, lambda row: answers.job(row, plan_of_active(row, now=now), now=now))


class JobView(APIView):
    """GET, PATCH and DELETE /jobs/{job_id}."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="job",
        parameters=[_JOB_ID],
        responses={200: schema.JobDetail, **problems(400, 404)},
    )
    def get(self, request: Request, job_id: str) -> Response:
        """Return a job, how its polls went, what keeps it from polling, and what the budget gives it."""
        validated(NoQuery, request.query_params)
        return Response(_detail_of(get_job(UUID(job_id), access_of(request)), fresh=False))

    @extend_schema(
        operation_id="change_job",
        request=ChangeRequest,
        parameters=[_JOB_ID, PollQuery],
        responses={200: schema.JobDetail, **problems(400, 404, 408, 409, 413, 415, 422)},
    )
    def patch(self, request: Request, job_id: str) -> Response:
        """Change how often a job polls, or what, or in which hours, beginning with its next slot.

        The slots follow from interval and symbols, so the next one comes after as much as a whole interval.
        With `strict=true` a shorter interval, symbols that were not polled before, and all hours in place of
        market hours, are refused where the budget does not carry the job in full.
        """
        strict = validated(PollQuery, request.query_params)["strict"]
        change = validated(ChangeRequest, request.data)
        job = change_planned_job(_own(UUID(job_id), request), **change, strict=strict, now=database_now())
        return Response(_detail_of(job, fresh=True))

    @extend_schema(
        operation_id="delete_job",
        request=None,
        parameters=[_JOB_ID],
        responses={204: None, **problems(400, 404, 408, 409, 413, 415)},
    )
    def delete(self, request: Request, job_id: str) -> Response:
        """Delete a stopped job: no call knows it any more. Its prices and its ledger stay."""
        _refuse_input(request)
        delete_job(_own(UUID(job_id), request))
        return Response(status=204)


class PauseView(APIView):
    """POST /jobs/{job_id}/pause."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="pause_job",
        request=None,
        parameters=[_JOB_ID],
        responses={200: schema.JobDetail, **problems(400, 404, 408, 409, 413, 415)},
    )
    def post(self, request: Request, job_id: str) -> Response:
        """Stop polling until the job is resumed. Once this is answered, no fetch starts for it.

        What is due meanwhile counts as a gap. Pausing a paused job changes nothing.
        """
        _refuse_input(request)
        return Response(_detail_of(pause_job(_own(UUID(job_id), request)), fresh=True))


class ResumeView(APIView):
    """POST /jobs/{job_id}/resume."""

    scope = Scope.JOBS

    @extend_schema(
        operation_id="resume_job",
        request=None,
        parameters=[_JOB_ID],
        responses={200: schema.JobDetail, **problems(400, 404, 408, 409, 413, 415)},
    )
    def post(self, request: Request, job_id: str) -> Response:
        """Poll a paused job again, at once. Resuming an active job changes nothing.

        One whose periodic task was switched off by hand is switched on.
        """
        _refuse_input(request)
        return Response(_detail_of(resume_job(_own(UUID(job_id), request)), fresh=True))


def _own(job_id: UUID, request: Request) -> UUID:
    """Return the id of a job that is the caller's, which it stays. Raises JobNotFoundError."""
    access = access_of(request)
    return job_id if access.is_of_all_jobs else get_job(job_id, access).id


def _refuse_input(request: Request) -> None:
    validated(NoQuery, request.query_params)
    validated(NoBody, request.data)


def _detail_of(job: PollJob, *, fresh: bool) -> dict[str, Any]:
    now = database_now()
    plan, last_day = plan_of_active(job, now=now, fresh=fresh), count_last_day(job, now=now)
    return answers.job_detail(job, plan, last_day, now=now)
