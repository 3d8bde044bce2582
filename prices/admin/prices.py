"""What is stored of prices: raw answers, points, averages."""

import json

from django.contrib import admin
from django.utils.safestring import SafeString

from prices.admin.formatting import preformatted, readable, unbroken
from prices.admin.read_only import ProviderFilter, ReadOnlyAdmin
from prices.models import PricePoint, RawMarketData, SymbolAverage


@admin.register(RawMarketData)
class RawMarketDataAdmin(ReadOnlyAdmin):
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
class PricePointAdmin(ReadOnlyAdmin):
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


@admin.register(SymbolAverage)
class SymbolAverageAdmin(ReadOnlyAdmin):
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
    list_filter = [ProviderFilter, "window_size"]
    ordering = ["-event_id"]
    symbol_lookup = "symbol"

    @admin.display(description="symbol", ordering="symbol")
    def whole_symbol(self, row: SymbolAverage) -> SafeString:
        """Return the symbol in one line."""
        return unbroken(row.symbol)
