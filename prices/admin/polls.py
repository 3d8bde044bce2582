"""The ledger: what became of the slots that were polled, and which were not."""

from django.contrib import admin
from django.utils.safestring import SafeString

from prices.admin.evidence import EvidenceAdmin
from prices.admin.texts import keeping_units, shortened
from prices.models import PollGap, PollRun


@admin.register(PollRun)
class PollRunAdmin(EvidenceAdmin):
    """Poll runs."""

    list_display = ["due_at", "polled", "state", "points", "short_reason", "took"]
    list_filter = ["state"]
    list_select_related = ["job"]
    ordering = ["-id"]
    id_lookups = ("pk", "job")

    @admin.display(description="job")
    def polled(self, run: PollRun) -> str:
        """Give the job, in as many lines as it takes."""
        return keeping_units(str(run.job))

    @admin.display
    def took(self, run: PollRun) -> str:
        """Give the time from the claim to the outcome."""
        return (
            "-"
            if run.finished_at is None
            else f"{(run.finished_at - run.started_at).total_seconds():.2f}\u00a0s"
        )

    @admin.display(description="reason")
    def short_reason(self, run: PollRun) -> SafeString:
        """Give why there is no price, or not for each symbol."""
        return shortened(run.reason or "-")


@admin.register(PollGap)
class PollGapAdmin(EvidenceAdmin):
    """Gaps."""

    list_display = ["job", "from_due", "to_due", "slots", "reason"]
    list_filter = ["reason"]
    list_select_related = ["job"]
    ordering = ["-id"]
    id_lookups = ("pk", "job")
