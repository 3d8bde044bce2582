"""What is stored of prices: raw answers, points, averages."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from prices.admin.formatting import preformatted, readable, unbroken
from prices.admin.read_only import PartitionedAdmin, ProviderFilter
from prices.database.newest import id_before
from prices.models import PricePoint, RawMarketData, SymbolAverage
from prices.models.poll_job import MAX_INTERVAL_S
from prices.models.symbol_average import WINDOW_POINTS

# When a run asks after its slot was due, up to an interval late; and before, by a clock that goes otherwise.
ASKED_WITHIN, ASKED_EARLY = timedelta(seconds=MAX_INTERVAL_S) + timedelta(hours=1), timedelta(minutes=1)


@admin.register(RawMarketData)
class RawMarketDataAdmin(PartitionedAdmin):
    """Raw answers."""

    list_display = ["received_at", "provider", "short_symbols", "status", "outcome", "latency"]
    list_filter = [ProviderFilter, "outcome"]
    ordering = ["-id"]
    symbol_lookup = "symbols__contains"
    exclude = ["payload", "body", "latency_ms"]
    readonly_fields = ["latency", "answer"]

    def of_id(self, searched: UUID) -> Q:
        """Return what is true of the answer of this id, and of those to the run of this id.

        A run's id has the time of its slot, so that only the partition of that time is read.
        """
        asked = Q(id__gte=id_before(searched, ASKED_EARLY), id__lt=id_before(searched, -ASKED_WITHIN))
        return Q(pk=searched) | (Q(poll=searched) & asked)

    @admin.display(description="symbols")
    def short_symbols(self, raw: RawMarketData) -> str:
        """Return the first symbols."""
        more = f" and {len(raw.symbols) - 3} more" if len(raw.symbols) > 3 else ""
        return ", ".join(raw.symbols[:3]) + more

    @admin.display(ordering="latency_ms")
    def latency(self, raw: RawMarketData) -> str:
        """Return the time from the request to its whole answer."""
        return f"{raw.latency_ms:.2f}\u00a0ms"

    @admin.display
    def answer(self, raw: RawMarketData) -> SafeString:
        """Return the body, laid out where it is JSON."""
        if raw.payload is None:
            return readable(raw.body)
        return preformatted(json.dumps(raw.payload, indent=2, ensure_ascii=False))


@admin.register(PricePoint)
class PricePointAdmin(PartitionedAdmin):
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
        """Return the symbol in one line."""
        return unbroken(point.symbol)


class WindowSizeFilter(admin.SimpleListFilter):
    """Filter by window size, from those there can be: asking the table for its own reads all of it."""

    title = "window size"
    parameter_name = "window_size"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the sizes."""
        return [(str(size), str(size)) for size in range(1, WINDOW_POINTS + 1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the chosen size."""
        chosen = {size for size, _text in self.lookup_choices}
        return queryset.filter(window_size=self.value()) if self.value() in chosen else queryset


@admin.register(SymbolAverage)
class SymbolAverageAdmin(PartitionedAdmin):
    """Averages."""

    list_display = [
        "whole_symbol",
        "price",
        "currency",
        "average",
        "window_size",
        "provider",
        "observed_at",
        "created_at",
    ]
    list_filter = [ProviderFilter, WindowSizeFilter]
    ordering = ["-event_id"]
    symbol_lookup = "symbol"

    @admin.display(description="symbol", ordering="symbol")
    def whole_symbol(self, row: SymbolAverage) -> SafeString:
        """Return the symbol in one line."""
        return unbroken(row.symbol)
