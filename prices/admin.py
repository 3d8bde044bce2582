"""The admin: every table to look at; jobs to change, pause, resume and stop. Evidence is read-only."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from prices.gaps import GapReason
from prices.jobs import JobStoppedError, change_interval, pause_job, resume_job, stop_job
from prices.models import (
    DeadLetter,
    JobStatus,
    PollGap,
    PollJob,
    PollRun,
    PricePoint,
    RawMarketData,
    SymbolAverage,
)
from prices.models.poll_job import MAX_INTERVAL_S, MIN_INTERVAL_S
from prices.quota import all_hindrances, plan_in_words, plan_of_active
from prices.symbols import normalise_symbol
from providers.registry import PROVIDER_NAMES

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[PollJob]
else:
    ModelAdmin = admin.ModelAdmin
    ModelForm = forms.ModelForm

admin.site.site_title = "Market data service"
admin.site.site_header = "Market data service (times in UTC)"
admin.site.index_title = "Tables"

# Of a text in a list; the row's own page shows it all.
LONGEST_TEXT = 90


class ProviderFilter(admin.SimpleListFilter):
    """Filter by provider, from the known names: asking a table of millions for its own is slow."""

    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Give the providers' names."""
        return [(name, name) for name in PROVIDER_NAMES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Give the rows of the chosen provider."""
        return queryset.filter(provider=self.value()) if self.value() else queryset


class EvidenceAdmin(ModelAdmin):
    """A table that can be looked at and not changed.

    The search finds a whole symbol or a whole id: what the indexes answer at any size.
    """

    symbol_lookup = ""
    id_lookups: tuple[str, ...] = ("pk",)
    search_fields = ["pk"]
    show_full_result_count = False
    list_per_page = 50

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Give the rows of this id or symbol; all of them where nothing is searched."""
        term = search_term.strip()
        if not term:
            return queryset, False
        as_id = _as_uuid(term)
        if as_id is not None:
            found = queryset.none()
            for lookup in self.id_lookups:
                found |= queryset.filter(**{lookup: as_id})
            return found, False
        symbol = normalise_symbol(term)
        if symbol is None or not self.symbol_lookup:
            return queryset.none(), False
        wanted = [symbol] if self.symbol_lookup.endswith("__contains") else symbol
        return queryset.filter(**{self.symbol_lookup: wanted}), False

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Give every field, the id first."""
        return list(dict.fromkeys([self.opts.pk.name, *super().get_fields(request, obj)]))

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Give what no form holds: the id too."""
        return [self.opts.pk.name, *super().get_readonly_fields(request, obj)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: rows come from the service."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: evidence stays as it is."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: evidence goes with its partition."""
        return False


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _hindrances(job: PollJob) -> str:
    return "; ".join(all_hindrances(job, plan_of_active(job, now=timezone.now())))


def _unbroken(text: str) -> SafeString:
    return format_html('<span style="white-space: nowrap">{}</span>', text)


def _keeping_units(text: str) -> str:
    """Give a job's name such that no line begins with the unit of its interval."""
    symbols, every, interval = text.rpartition(" every ")
    return symbols + every + interval.replace(" ", "\u00a0")


def _shortened(text: str) -> SafeString:
    """Give the beginning of a long text, wide enough to be read; the whole text is its title."""
    shown = Truncator(text).chars(LONGEST_TEXT)
    return format_html('<div style="min-width: 15em" title="{}">{}</div>', text, shown)


def _preformatted(text: str) -> SafeString:
    return format_html('<pre style="white-space: pre-wrap; margin: 0">{}</pre>', text)


def _readable(value: bytes | memoryview | None) -> SafeString:
    return _preformatted("" if value is None else bytes(value).decode(errors="backslashreplace"))


@admin.register(RawMarketData)
class RawMarketDataAdmin(EvidenceAdmin):
    """Raw answers."""

    list_display = ["received_at", "provider", "short_symbols", "status", "outcome", "latency"]
    list_filter = [ProviderFilter, "outcome"]
    ordering = ["-id"]
    symbol_lookup = "symbols__contains"
    id_lookups = ("pk", "poll")
    exclude = ["payload", "body", "latency_ms"]
    readonly_fields = ["latency", "answer"]

    @admin.display(description="symbols")
    def short_symbols(self, raw: RawMarketData) -> str:
        """Give the first symbols."""
        more = f" and {len(raw.symbols) - 3} more" if len(raw.symbols) > 3 else ""
        return ", ".join(raw.symbols[:3]) + more

    @admin.display(ordering="latency_ms")
    def latency(self, raw: RawMarketData) -> str:
        """Give the time from the request to its whole answer."""
        return f"{raw.latency_ms:.2f}\u00a0ms"

    @admin.display
    def answer(self, raw: RawMarketData) -> SafeString:
        """Give the body, laid out where it is JSON."""
        if raw.payload is None:
            return _readable(raw.body)
        return _preformatted(json.dumps(raw.payload, indent=2, ensure_ascii=False))


@admin.register(PricePoint)
class PricePointAdmin(EvidenceAdmin):
    """Price points."""

    list_display = [
        "whole_symbol",
        "price",
        "currency",
        "provider",
        "observed_at",
        "received_at",
        "published_at",
    ]
    list_filter = [ProviderFilter, "precision", ("published_at", admin.EmptyFieldListFilter)]
    ordering = ["-id"]
    symbol_lookup = "symbol"

    @admin.display(description="symbol", ordering="symbol")
    def whole_symbol(self, point: PricePoint) -> SafeString:
        """Give the symbol in one line."""
        return _unbroken(point.symbol)


@admin.register(SymbolAverage)
class SymbolAverageAdmin(EvidenceAdmin):
    """Averages."""

    list_display = [
        "whole_symbol",
        "price",
        "average",
        "window_size",
        "provider",
        "observed_at",
        "created_at",
    ]
    list_filter = [ProviderFilter, "window_size"]
    ordering = ["-event_id"]
    symbol_lookup = "symbol"

    @admin.display(description="symbol", ordering="symbol")
    def whole_symbol(self, row: SymbolAverage) -> SafeString:
        """Give the symbol in one line."""
        return _unbroken(row.symbol)


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
        return _keeping_units(str(run.job))

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
        return _shortened(run.reason or "-")


class GapReasonFilter(admin.SimpleListFilter):
    """Filter by reason, from the known ones."""

    title = "reason"
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Give the reasons."""
        return [(str(reason), str(reason)) for reason in GapReason]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Give the gaps of the chosen reason."""
        return queryset.filter(reason=self.value()) if self.value() else queryset


@admin.register(PollGap)
class PollGapAdmin(EvidenceAdmin):
    """Gaps."""

    list_display = ["job", "from_due", "to_due", "slots", "reason"]
    list_filter = [GapReasonFilter]
    list_select_related = ["job"]
    ordering = ["-id"]
    id_lookups = ("pk", "job")


@admin.register(DeadLetter)
class DeadLetterAdmin(EvidenceAdmin):
    """Dead letters."""

    list_display = ["created_at", "topic", "partition", "offset", "reason", "replayed_at"]
    list_filter = [("replayed_at", admin.EmptyFieldListFilter)]
    ordering = ["-id"]
    exclude = ["key", "value"]
    readonly_fields = ["key_text", "value_text"]

    @admin.display(description="key")
    def key_text(self, letter: DeadLetter) -> SafeString:
        """Give the key as text."""
        return _readable(letter.key)

    @admin.display(description="value")
    def value_text(self, letter: DeadLetter) -> SafeString:
        """Give the value as text."""
        return _readable(letter.value)


class IntervalForm(ModelForm):
    """What can be changed of a job."""

    interval = forms.IntegerField(
        min_value=MIN_INTERVAL_S,
        max_value=MAX_INTERVAL_S,
        help_text="Seconds between polls. A change counts from the next slot of the new interval.",
    )


@admin.register(PollJob)
class PollJobAdmin(EvidenceAdmin):
    """Jobs; the actions pause, resume and stop the selected ones, and a job's page changes its interval."""

    form = IntervalForm

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
        "periodic_task",
        "hindrances",
        "quota_plan",
    ]
    actions = ["pause", "resume", "stop"]

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may pause, resume and stop jobs."""
        return request.user.has_perm("prices.change_polljob")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Tell whether the user may change the interval: not of a job that was stopped for good."""
        is_stopped = isinstance(obj, PollJob) and obj.status == JobStatus.STOPPED
        return self.has_manage_permission(request) and not is_stopped

    def save_model(self, request: HttpRequest, obj: PollJob, form: Any, change: bool) -> None:
        """Change the interval as every change of it is made."""
        change_interval(obj.id, obj.interval)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show a job's page, or change its interval; say so where the job was stopped meanwhile."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except JobStoppedError:
            self.message_user(request, "The job was stopped for good.", messages.WARNING)
            return HttpResponseRedirect(request.path)

    @admin.display(description="polls", ordering="id")
    def title(self, job: PollJob) -> str:
        """Give what the job polls."""
        return _keeping_units(str(job))

    @admin.display(description="what keeps it from polling")
    def short_hindrances(self, job: PollJob) -> SafeString:
        """Give the beginning of what keeps an active job from polling."""
        return _shortened(_hindrances(job) or "-")

    @admin.display(description="last error")
    def short_last_error(self, job: PollJob) -> SafeString:
        """Give the beginning of why the last poll failed."""
        return _shortened(job.last_error or "-")

    @admin.display(description="what keeps it from polling")
    def hindrances(self, job: PollJob) -> str:
        """Give what keeps an active job from polling."""
        return _hindrances(job) or "nothing"

    @admin.display(description="what the budget gives it")
    def quota_plan(self, job: PollJob) -> str:
        """Give the plan of an active job."""
        plan = plan_of_active(job, now=timezone.now())
        return "-" if plan is None else plan_in_words(plan)

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
