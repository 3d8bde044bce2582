"""The ledger: what became of the slots that were polled, and which were not."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from prices.admin.formatting import keeping_units, shortened
from prices.admin.read_only import PartitionedAdmin, ReadOnlyAdmin
from prices.clock import database_now
from prices.database.uuid7 import first_id_at
from prices.ledger.gaps import GapReason
from prices.models import PollGap, PollRun


class DueFilter(admin.SimpleListFilter):
    """Filter by when the poll was due, by the time in the id: only partitions of that time are read."""

    title = "due"
    parameter_name = "due"
    hours = {"1": "in the last hour", "24": "in the last 24 hours"}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the lengths of time."""
        return list(self.hours.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the runs of the chosen time."""
        chosen = self.value()
        if chosen not in self.hours:
            return queryset
        return queryset.filter(id__gte=first_id_at(database_now() - timedelta(hours=int(chosen))))


class ReasonFilter(admin.SimpleListFilter):
    """Filter by reason, from the known ones."""

    title = "reason"
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the reasons."""
        return [(str(reason), str(reason)) for reason in GapReason]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the gaps of the chosen reason."""
        return queryset.filter(reason=self.value()) if self.value() else queryset


@admin.register(PollRun)
class PollRunAdmin(PartitionedAdmin):
    """Poll runs."""

    list_display = ["due_at", "polled", "state", "points", "short_reason", "took"]
    list_filter = ["state", DueFilter]
    list_select_related = ["job"]
    ordering = ["-id"]
    id_lookups = ("pk", "job")
    linked_lookups = ("job__id__exact",)

    @admin.display(description="job")
    def polled(self, run: PollRun) -> str:
        """Return the job, in as many lines as it takes."""
        return keeping_units(str(run.job))

    @admin.display
    def took(self, run: PollRun) -> str:
        """Return the time from the claim to the outcome."""
        return (
            "-"
            if run.finished_at is None
            else f"{(run.finished_at - run.started_at).total_seconds():.2f}\u00a0s"
        )

    @admin.display(description="reason")
    def short_reason(self, run: PollRun) -> SafeString:
        """Return why there is no price, or not for each symbol."""
        return shortened(run.reason or "-")


@admin.register(PollGap)
class PollGapAdmin(ReadOnlyAdmin):
    """Gaps."""

    list_display = ["from_due", "to_due", "slots", "reason", "polled"]
    list_filter = [ReasonFilter]
    list_select_related = ["job"]
    ordering = ["-id"]
    id_lookups = ("pk", "job")
    linked_lookups = ("job__id__exact",)

    @admin.display(description="job")
    def polled(self, gap: PollGap) -> str:
        """Return the job, in as many lines as it takes."""
        return keeping_units(str(gap.job))
