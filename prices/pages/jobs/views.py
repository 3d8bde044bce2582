"""The pages of the jobs: the list, a new one, and each one with what can be done to it."""

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render

from prices.access.rights import Access
from prices.api.fields.values import parse_uuid
from prices.api.problems import problem_for
from prices.clock import database_now, recent_now
from prices.jobs.idempotency import Answer, KeyInUseError, answer_once
from prices.jobs.services import (
    JobNotFoundError,
    JobNotStoppedError,
    JobStoppedError,
    UnservedSymbolsError,
    delete_job,
    get_job,
    pause_job,
    resume_job,
    stop_job,
)
from prices.models import JobStatus, PollJob, Scope
from prices.pages.changing import ask_to_log_in, may_change
from prices.pages.jobs.details import read_details
from prices.pages.jobs.forms import JobForm
from prices.pages.jobs.planning import answer_for
from prices.pages.jobs.rows import GOING_ON, read_jobs
from prices.pages.jobs.strips import CELL_WIDTH, HEIGHT, MINUTES
from prices.pages.page import NothingToShowError, Shown, form_page, page
from prices.quota import BeyondBudgetError, StrictKeyError, Target, change_planned_job, create_planned_job
from prices.symbols import normalise_symbol
from providers.registry import PROVIDER_NAMES

_PICTURE = {"width": MINUTES * CELL_WIDTH, "height": HEIGHT, "cell": CELL_WIDTH - 1}
# What a person can do something about, by another form.
_REFUSALS = (
    BeyondBudgetError,
    JobNotStoppedError,
    JobStoppedError,
    KeyInUseError,
    StrictKeyError,
    UnservedSymbolsError,
)
_CHANGES: dict[str, tuple[Callable[[UUID], PollJob], str]] = {
    "pause": (pause_job, "Paused: nothing is polled until it is resumed."),
    "resume": (resume_job, "Resumed: it is polled at once."),
    "stop": (stop_job, "Stopped for good."),
}


@page
def jobs(request: HttpRequest, access: Access) -> Shown:
    """Show what is polled, and how it fares."""
    access.require(Scope.JOBS)
    now, status = recent_now(), request.GET.get("status", "")
    status = status if status in {*JobStatus.values, "all"} else ""
    asked = request.GET.get("symbol", "").strip()
    symbol = normalise_symbol(asked) if asked else None
    is_wrong = bool(asked) and symbol is None
    statuses = {"": GOING_ON, "all": ()}.get(status, (status,))
    before = parse_uuid(request.GET.get("before"))
    found = read_jobs(statuses=statuses, symbol=symbol, before=before, now=now, access=access)
    filters = [("", "going on"), *((each, each) for each in JobStatus.values), ("all", "all")]
    shown = {"list": None if is_wrong else found, "asked": asked, "status": status, "filters": filters}
    return "pages/jobs.html", shown | _PICTURE | {"now": now, "may_change": may_change(request)}


@form_page
def new_job(request: HttpRequest, access: Access) -> Shown | HttpResponseBase:
    """Show the form of a new job and what it would get, or make the job."""
    access.require(Scope.JOBS)
    if not may_change(request):
        return ask_to_log_in(request)
    sent = request.POST if request.method == "POST" else request.GET
    form = JobForm.sent(sent) if "symbols" in sent else JobForm()
    values = form.read_new() if "symbols" in sent else None
    if request.method == "POST" and "check" not in sent and values is not None:
        made = _made(request, form, Target(**values))
        if made is not None:
            return made
    plan = None if values is None else answer_for(values, now=database_now())
    shown = {"form": form, "plan": plan, "providers": PROVIDER_NAMES, "once": sent.get("once") or uuid4()}
    if request.method == "POST" and (form.errors or form.other):
        return render(request, "pages/new_job.html", shown, status=HTTPStatus.BAD_REQUEST)
    return "pages/new_job.html", shown


def _made(request: HttpRequest, form: JobForm, target: Target) -> HttpResponse | None:
    """Make the job and lead to it; None where it is refused, which the form says then."""
    now = database_now()

    def make() -> Answer:
        job, _plan = create_planned_job(target, strict=False, now=now)
        return Answer({"job_id": str(job.id)}, {})

    asked = target._asdict()
    # The same form sent twice is one job; sent again with other words it is another one.
    content = hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()
    once = f"page {request.POST.get('once', '')[:40] or uuid4()} {content}"
    try:
        answer = answer_once(once, asked, make, now=now)
    except _REFUSALS as error:
        _explain(error, form)
        return None
    messages.success(request, "The job is made, and is polled at once.")
    return redirect("job-page", job_id=answer.body["job_id"])


@form_page
def job(request: HttpRequest, access: Access, job_id: str) -> Shown | HttpResponse:
    """Show a job and its gaps, or do to it what is asked."""
    access.require(Scope.JOBS)
    try:
        found = get_job(UUID(job_id), access)
        form = JobForm.of(found)
        if request.method == "POST":
            form = JobForm.sent(request.POST) if request.POST.get("action") == "change" else form
            done = _done(request, found, form)
            if done is not None:
                return done
    except JobNotFoundError:
        raise NothingToShowError("There is no such job, or it was deleted.") from None
    shown: dict[str, Any] = {"details": read_details(found, now=database_now()), "form": form, **_PICTURE}
    shown |= {"may_change": may_change(request)}
    if request.method == "POST":
        return render(request, "pages/job.html", shown, status=HTTPStatus.BAD_REQUEST)
    return "pages/job.html", shown


def _done(request: HttpRequest, found: PollJob, form: JobForm) -> HttpResponse | None:
    """Do what is asked, and lead to the page that shows it; None where it cannot be, which the form says."""
    action = request.POST.get("action", "")
    try:
        if action == "delete":
            delete_job(found.id)
            messages.success(request, f"Deleted: {found}. Its prices and its ledger stay.")
            return redirect("jobs-page")
        if action == "change":
            values = form.read_change()
            if values is None:
                return None
            change_planned_job(found.id, **values, strict=False, now=database_now())
            words = "Changed: it begins with the next slot."
        elif action in _CHANGES:
            change, words = _CHANGES[action]
            change(found.id)
        else:
            form.other = "Nothing was done: that is nothing that can be done to a job."
            return None
    except _REFUSALS as error:
        _explain(error, form)
        return None
    messages.success(request, words)
    return redirect("job-page", job_id=found.id)


def _explain(error: Exception, form: JobForm) -> None:
    """Show in the form what a service refused."""
    problem = problem_for(error)
    if problem is None:
        raise error
    form.take(problem)
