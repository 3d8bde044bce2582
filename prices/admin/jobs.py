"""Jobs, to look at, change, pause, resume and stop."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from prices.admin.formatting import keeping_units, shortened
from prices.admin.read_only import ProviderFilter, ReadOnlyAdmin
from prices.clock import database_now
from prices.jobs.services import (
    JobNotFoundError,
    JobStoppedError,
    pause_job,
    resume_job,
    stop_job,
    wait_for_started_fetches,
)
from prices.models import JobStatus, PollJob
from prices.models.poll_job import MAX_INTERVAL_S, MIN_INTERVAL_S
from prices.quota import (
    BeyondBudgetError,
    StrictKeyError,
    all_blockers,
    change_planned_job,
    plan_in_words,
    plan_of_active,
)

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[PollJob]
else:
    ModelForm = forms.ModelForm


def _blocked_by(job: PollJob) -> str:
    now = timezone.now()
    return "; ".join(all_blockers(job, plan_of_active(job, now=now), now=now))


class DeletedFilter(admin.SimpleListFilter):
    """Leave out the jobs that were deleted, or show those alone."""

    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the one choice besides the default."""
        return [("yes", "Yes")]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yield the default by its name: it is not all jobs."""
        default, *others = super().choices(changelist)
        yield {**default, "display": "No"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[PollJob]) -> QuerySet[PollJob]:
        """Return the jobs."""
        return queryset.filter(deleted_at__isnull=self.value() != "yes")


class JobForm(ModelForm):
    """What can be changed of a job."""

    interval = forms.IntegerField(
        min_value=MIN_INTERVAL_S,
        max_value=MAX_INTERVAL_S,
        help_text="Seconds between polls. A change counts from the next slot of the new interval.",
    )


@admin.register(PollJob)
class PollJobAdmin(ReadOnlyAdmin):
    """Jobs; actions pause, resume and stop the selected ones, and a job's page changes what can be."""

    form = JobForm

    list_display = [
        "title",
        "status",
        "provider",
        "short_blocked_by",
        "last_success_at",
        "failures",
        "short_last_error",
    ]
    list_display_links = ["title"]
    list_filter = ["status", ProviderFilter, "market_hours", DeletedFilter]
    list_select_related = ["periodic_task"]
    ordering = ["-id"]
    symbol_lookup = "symbols__contains"
    readonly_fields = [
        "symbols",
        "provider",
        "served_by",
        "status",
        "created_at",
        "last_run_at",
        "last_success_at",
        "last_error",
        "failures",
        "accounted_until",
        "market_hours_from",
        "deleted_at",
        "periodic_task",
        "blocked_by",
        "quota_plan",
        "ledger",
    ]
    actions = ["pause", "resume", "stop"]

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may pause, resume and stop jobs."""
        return request.user.has_perm("prices.change_polljob")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether the user may change a job: not one that was stopped for good."""
        is_stopped = isinstance(obj, PollJob) and obj.status == JobStatus.STOPPED
        return self.has_manage_permission(request) and not is_stopped

    def save_model(self, request: HttpRequest, obj: PollJob, form: Any, change: bool) -> None:
        """Change the job as every change of one is made."""
        change_planned_job(
            obj.id,
            interval=obj.interval,
            market_hours=obj.market_hours,
            strict=False,
            now=database_now(),
        )

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show a job's page, or change the job; say so where that is refused."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except JobStoppedError:
            refusal = "The job was stopped for good."
        except (BeyondBudgetError, StrictKeyError) as error:
            refusal = f"Not changed, since QUOTA_STRICT is set: it would get {plan_in_words(error.plan)}."
        self.message_user(request, refusal, messages.WARNING)
        return HttpResponseRedirect(request.path)

    def response_action(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        *args: Any,
        **kwargs: Any,
    ) -> HttpResponse | None:
        """Do what was chosen; say so where what was selected is no id."""
        try:
            return super().response_action(request, queryset, *args, **kwargs)
        except ValidationError:
            self.message_user(request, "Nothing was done: what was selected is no id.", messages.WARNING)
        return HttpResponseRedirect(request.get_full_path())

    @admin.display(description="polls", ordering="id")
    def title(self, job: PollJob) -> str:
        """Return what the job polls."""
        return keeping_units(str(job))

    @admin.display(description="what keeps it from polling")
    def short_blocked_by(self, job: PollJob) -> SafeString:
        """Return the beginning of what keeps an active job from polling."""
        return shortened(_blocked_by(job) or "-")

    @admin.display(description="last error")
    def short_last_error(self, job: PollJob) -> SafeString:
        """Return the beginning of why the last poll failed."""
        return shortened(job.last_error or "-")

    @admin.display(description="what keeps it from polling")
    def blocked_by(self, job: PollJob) -> str:
        """Return what keeps an active job from polling."""
        return _blocked_by(job) or "nothing"

    @admin.display(description="what the budget gives it")
    def quota_plan(self, job: PollJob) -> str:
        """Return the plan of an active job."""
        plan = plan_of_active(job, now=timezone.now())
        return "-" if plan is None else plan_in_words(plan)

    @admin.display(description="what became of its slots")
    def ledger(self, job: PollJob) -> SafeString:
        """Return the ways to the job's runs and gaps."""
        address = "{}?job__id__exact={}"
        return format_html(
            '<a href="{}">polls</a>, <a href="{}">slots that were not polled</a>',
            address.format(reverse("admin:prices_pollrun_changelist"), job.id),
            address.format(reverse("admin:prices_pollgap_changelist"), job.id),
        )

    @admin.action(description="Pause selected jobs", permissions=["manage"])
    def pause(self, request: HttpRequest, jobs: QuerySet[PollJob]) -> None:
        """Pause the jobs."""
        self._change(request, jobs, partial(pause_job, waits=False), "paused")
        wait_for_started_fetches([job.id for job in jobs])

    @admin.action(description="Resume selected jobs", permissions=["manage"])
    def resume(self, request: HttpRequest, jobs: QuerySet[PollJob]) -> None:
        """Resume the jobs."""
        self._change(request, jobs, resume_job, "resumed")

    @admin.action(description="Stop selected jobs for good", permissions=["manage"])
    def stop(self, request: HttpRequest, jobs: QuerySet[PollJob]) -> None:
        """Stop the jobs."""
        self._change(request, jobs, partial(stop_job, waits=False), "stopped")
        wait_for_started_fetches([job.id for job in jobs])

    def _change(
        self,
        request: HttpRequest,
        jobs: QuerySet[PollJob],
        change: Callable[[UUID], PollJob],
        done: str,
    ) -> None:
        changed = 0
        for job in jobs:
            try:
                change(job.id)
                changed += 1
            except (JobStoppedError, JobNotFoundError):
                self.message_user(request, f"{job} was stopped for good.", messages.WARNING)
        if changed:
            self.message_user(request, f"{changed} job{'s' * (changed != 1)} {done}.", messages.SUCCESS)
