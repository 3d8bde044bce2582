"""What the queries of reads may hold: which rows, in which order and form."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from prices.api.fields import (
    SYMBOL_ALLOWED,
    MomentField,
    ProviderField,
    StrictField,
    SymbolField,
    SymbolListField,
    SymbolPartField,
    WholeNumberField,
    WordField,
    parse_uuid,
)
from prices.bars.reading import LENGTHS
from prices.clock import recent_now
from prices.database.uuid7 import EPOCH
from prices.history.query import Position, Query
from prices.symbols import normalise_symbol

MAX_ROWS = 10_000
DEFAULT_ROWS = 1_000
MAX_SYMBOLS_LISTED = 1_000
DEFAULT_SYMBOLS_LISTED = 100


@extend_schema_field({"type": "string"})
class CursorField(StrictField[Position]):
    """Where a page begins, as `next` of the page before has it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(help_text="what `next` of the page before has", **kwargs)

    def to_internal_value(self, data: Any) -> Position:
        """Return the position."""
        row_id, comma, name = str(data).partition(",")
        found, symbol = parse_uuid(row_id), normalise_symbol(name) if comma else None
        if found is None or bool(comma) != bool(symbol):
            raise serializers.ValidationError("is not of a page")
        return Position(found, symbol)


def cursor_of(position: Position) -> str:
    """Return the cursor of a page that begins there."""
    return f"{position.row_id},{position.symbol}" if position.symbol else str(position.row_id)


class RowsRequest(serializers.Serializer[Any]):
    """The query of a list of rows as they were received."""

    symbol = SymbolField(required=False, default=None)
    symbols = SymbolListField(required=False, default=None)
    provider = ProviderField()
    since = MomentField("; received then or later", required=False, default=None)
    until = MomentField("; received before then", required=False, default=None)
    order = WordField("asc", "desc", required=False, default="desc")
    limit = WholeNumberField(1, MAX_ROWS, required=False, default=None)
    cursor = CursorField(required=False, default=None)
    numbers = WordField("number", "string", required=False, default="number")
    format = WordField("json", "csv", "ndjson", required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse times in the wrong order, and a cursor of other symbols."""
        if attrs["symbol"] and attrs["symbols"]:
            raise serializers.ValidationError({"symbols": ["is given together with symbol"]})
        if attrs["since"] and attrs["until"] and attrs["since"] >= attrs["until"]:
            raise serializers.ValidationError({"since": ["is not before until"]})
        symbols = attrs["symbols"] or [symbol for symbol in [attrs["symbol"]] if symbol]
        after: Position | None = attrs["cursor"]
        if after is not None and (after.symbol not in symbols if symbols else after.symbol is not None):
            raise serializers.ValidationError({"cursor": ["is of a page of other symbols"]})
        return attrs | {"query": _query(attrs, symbols)}


def _query(attrs: dict[str, Any], symbols: list[str]) -> Query:
    return Query(
        symbols=symbols,
        provider=attrs["provider"],
        since=attrs["since"],
        until=attrs["until"],
        is_ascending=attrs["order"] == "asc",
        only_changes=attrs.get("distinct") is not None,
        after=attrs["cursor"],
    )


class HistoryRequest(RowsRequest):
    """The query of GET /prices/history."""

    distinct = WordField("observed", required=False, default=None)


class AveragesRequest(RowsRequest):
    """The query of GET /averages."""

    expand = WordField("inputs", required=False, default=None)


class BarsRequest(serializers.Serializer[Any]):
    """The query of GET /prices/bars."""

    symbol = SymbolField()
    interval = WordField(*LENGTHS)
    provider = ProviderField()
    since = MomentField("; bars that begin then or later", required=False, default=None)
    until = MomentField("; bars that begin before then; left out: now", required=False, default=None)
    limit = WholeNumberField(1, MAX_ROWS, required=False, default=DEFAULT_ROWS)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Fill in what was left out. Refuse times in the wrong order."""
        until = attrs["until"] or recent_now()
        # As many as fit before `until`; nothing is older than 1970.
        span = min(attrs["limit"] * LENGTHS[attrs["interval"]], until - EPOCH)
        since = attrs["since"] or until - span
        if since >= until:
            raise serializers.ValidationError({"since": ["is not before until"]})
        return attrs | {"since": since, "until": until}


class NewestAveragesRequest(serializers.Serializer[Any]):
    """The query of GET /averages/latest."""

    symbol = SymbolField(required=False, default=None)
    symbols = SymbolListField(required=False, default=None)
    expand = WordField("inputs", required=False, default=None)
    numbers = WordField("number", "string", required=False, default="number")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a symbol beside symbols, and neither."""
        if attrs["symbol"] and attrs["symbols"]:
            raise serializers.ValidationError({"symbols": ["is given together with symbol"]})
        if not attrs["symbol"] and not attrs["symbols"]:
            raise serializers.ValidationError({"symbols": ["is required"]})
        return attrs | {"symbols": attrs["symbols"] or [attrs["symbol"]]}


class PriceRequest(serializers.Serializer[Any]):
    """The query of GET /prices/{event_id}."""

    numbers = WordField("number", "string", required=False, default="number")


class SymbolsRequest(serializers.Serializer[Any]):
    """The query of GET /symbols."""

    q = SymbolPartField(f"a part of the symbol in any case: {SYMBOL_ALLOWED}", required=False, default="")
    limit = WholeNumberField(1, MAX_SYMBOLS_LISTED, required=False, default=DEFAULT_SYMBOLS_LISTED)
    cursor = SymbolPartField("what `next` of the page before has", required=False, default="")
