"""Jobs, to look at, pause, resume and stop."""

from collections.abc import Callable
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from prices.admin.evidence import EvidenceAdmin, ProviderFilter
from prices.admin.texts import keeping_units, shortened
from prices.jobs import JobStoppedError, pause_job, resume_job, stop_job
from prices.models import PollJob
from prices.quota import all_hindrances, plan_in_words, plan_of_active


def _hindrances(job: PollJob) -> str:
    return "; ".join(all_hindrances(job, plan_of_active(job, now=timezone.now())))


@admin.register(PollJob)
class PollJobAdmin(EvidenceAdmin):
    """Jobs; the actions pause, resume and stop the selected ones."""

    list_display = [
        "title",
        "status",
        "provider",
        "short_hindrances",
        "last_success_at",
        "failures",
        "short_last_error",
    ]
    list_display_links = ["title"]
    list_filter = ["status", ProviderFilter]
    list_select_related = ["periodic_task"]
    ordering = ["-id"]
    symbol_lookup = "symbols__contains"
    readonly_fields = ["created_at", "hindrances", "quota_plan", "ledger"]
    actions = ["pause", "resume", "stop"]

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may pause, resume and stop jobs."""
        return request.user.has_perm("prices.change_polljob")

    @admin.display(description="polls", ordering="id")
    def title(self, job: PollJob) -> str:
        """Give what the job polls."""
        return keeping_units(str(job))

    @admin.display(description="what keeps it from polling")
    def short_hindrances(self, job: PollJob) -> SafeString:
        """Give the beginning of what keeps an active job from polling."""
        return shortened(_hindrances(job) or "-")

    @admin.display(description="last error")
    def short_last_error(self, job: PollJob) -> SafeString:
        """Give the beginning of why the last poll failed."""
        return shortened(job.last_error or "-")

    @admin.display(description="what keeps it from polling")
    def hindrances(self, job: PollJob) -> str:
        """Give what keeps an active job from polling."""
        return _hindrances(job) or "nothing"

    @admin.display(description="what the budget gives it")
    def quota_plan(self, job: PollJob) -> str:
        """Give the plan of an active job."""
        plan = plan_of_active(job, now=timezone.now())
        return "-" if plan is None else plan_in_words(plan)

    @admin.display(description="what became of its slots")
    def ledger(self, job: PollJob) -> SafeString:
        """Give the ways to the job's runs and gaps."""
        address = "{}?job__id__exact={}"
        return format_html(
            '<a href="{}">polls</a>, <a href="{}">slots that were not polled</a>',
            address.format(reverse("admin:prices_pollrun_changelist"), job.id),
            address.format(reverse("admin:prices_pollgap_changelist"), job.id),
        )

    @admin.action(description="Pause selected jobs", permissions=["manage"])
    def pause(self, request: HttpRequest, jobs: QuerySet[PollJob]) -> None:
        """Pause the jobs."""
        self._change(request, jobs, pause_job, "paused")

    @admin.action(description="Resume selected jobs", permissions=["manage"])
    def resume(self, request: HttpRequest, jobs: QuerySet[PollJob]) -> None:
        """Resume the jobs."""
        self._change(request, jobs, resume_job, "resumed")

    @admin.action(description="Stop selected jobs for good", permissions=["manage"])
    def stop(self, request: HttpRequest, jobs: QuerySet[PollJob]) -> None:
        """Stop the jobs."""
        self._change(request, jobs, stop_job, "stopped")

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
            except JobStoppedError:
                self.message_user(request, f"{job} was stopped for good.", messages.WARNING)
        if changed:
            self.message_user(request, f"{changed} job{'s' * (changed != 1)} {done}.", messages.SUCCESS)
