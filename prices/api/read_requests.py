"""What the queries of reads may hold: which rows, in which order and form."""

from typing import Any

from rest_framework import serializers

from prices.api.fields import (
    SINCE,
    SYMBOL_ALLOWED,
    UNTIL,
    IdField,
    MomentField,
    ProviderField,
    StrictField,
    SymbolField,
    SymbolListField,
    SymbolPartField,
    TimeField,
    WholeNumberField,
    WordField,
    WordListField,
    json_schema,
    parse_uuid,
)
from prices.api.serializers import MAX_LIMIT, PageRequest
from prices.bars.reading import LENGTHS
from prices.clock import database_now, recent_now
from prices.database.uuid7 import EPOCH
from prices.history.query import Position, Query
from prices.ledger.reports import DAY, LONGEST_WINDOW
from prices.models import RunState
from prices.symbols import normalise_symbol

MAX_ROWS = 10_000
DEFAULT_ROWS = 1_000
MAX_SYMBOLS_LISTED = 1_000
DEFAULT_SYMBOLS_LISTED = 100


class CursorField(StrictField[Position]):
    """Where a page begins, as `next` of the page before has it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("what `next` of the page before has", schema=json_schema.CURSOR, **kwargs)

    def to_internal_value(self, data: Any) -> Position:
        """Return the position."""
        row_id, comma, name = str(data).partition(",")
        found, symbol = parse_uuid(row_id), normalise_symbol(name) if comma else None
        if found is None or bool(comma) != bool(symbol):
            raise serializers.ValidationError("is not of a page")
        return Position(found, symbol)


def numbers_field() -> WordField:
    """Return the field that chooses how prices are written."""
    return WordField("number", "string", meaning="How prices are written", required=False, default="number")


def cursor_of(position: Position) -> str:
    """Return the cursor of a page that begins there."""
    return f"{position.row_id},{position.symbol}" if position.symbol else str(position.row_id)


class RowsRequest(serializers.Serializer[Any]):
    """The query of a list of rows as they were received."""

    symbol = SymbolField(meaning="Only this one", more="Not beside `symbols`.", required=False, default=None)
    symbols = SymbolListField(
        meaning="Only these, in this order", more="Not beside `symbol`.", required=False, default=None
    )
    provider = ProviderField(meaning="Only prices of this one")
    since = MomentField("; received then or later", meaning=SINCE, required=False, default=None)
    until = MomentField("; received before then", meaning=UNTIL, required=False, default=None)
    order = WordField(
        "asc", "desc", meaning="By the time of receipt, up or down", required=False, default="desc"
    )
    limit = WholeNumberField(
        1,
        MAX_ROWS,
        meaning="Rows of the page or file",
        more=f"Left out: {DEFAULT_ROWS} of a page, all of a file.",
        required=False,
        default=None,
    )
    cursor = CursorField(
        meaning="Where the page begins",
        more="With the `symbol` or `symbols` of that page.",
        required=False,
        default=None,
    )
    numbers = numbers_field()
    format = WordField(
        "json", "csv", "ndjson", meaning="The form, whatever `Accept` says", required=False, default=None
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse times in the wrong order, and a cursor of other symbols."""
        if attrs["symbol"] and attrs["symbols"]:
            raise serializers.ValidationError({"symbols": ["is given together with symbol"]})
        if attrs["since"] and attrs["until"]:
            _check_order(attrs)
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

    distinct = WordField(
        "observed",
        meaning="Leave out a price of the same provider's time as the one before",
        required=False,
        default=None,
    )


class AveragesRequest(RowsRequest):
    """The query of GET /averages."""

    expand = WordField("inputs", meaning="Tell the points of each window", required=False, default=None)


class BarsRequest(serializers.Serializer[Any]):
    """The query of GET /prices/bars."""

    symbol = SymbolField(meaning="The symbol", examples=["SIM-ACME"])
    interval = WordField(*LENGTHS, meaning="The length of a bar", examples=["1h"])
    provider = ProviderField(meaning="Only bars of this one")
    since = MomentField("; bars that begin then or later", meaning=SINCE, required=False, default=None)
    until = MomentField(
        "; bars that begin before then; left out: now", meaning=UNTIL, required=False, default=None
    )
    limit = WholeNumberField(
        1,
        MAX_ROWS,
        meaning="Bars of the page, those of one time as one",
        required=False,
        default=DEFAULT_ROWS,
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Fill in what was left out. Refuse times in the wrong order."""
        until = attrs["until"] or recent_now()
        # As many as fit before `until`; nothing is older than 1970.
        span = min(attrs["limit"] * LENGTHS[attrs["interval"]], until - EPOCH)
        whole = attrs | {"since": attrs["since"] or until - span, "until": until}
        _check_order(whole)
        return whole


class NewestAveragesRequest(serializers.Serializer[Any]):
    """The query of GET /averages/latest."""

    symbol = SymbolField(
        meaning="One symbol",
        more="Either this or `symbols` is given.",
        examples=["SIM-ACME"],
        required=False,
        default=None,
    )
    symbols = SymbolListField(required=False, default=None)
    expand = WordField("inputs", meaning="Tell the points of each window", required=False, default=None)
    numbers = numbers_field()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a symbol beside symbols, and neither."""
        if attrs["symbol"] and attrs["symbols"]:
            raise serializers.ValidationError({"symbols": ["is given together with symbol"]})
        if not attrs["symbol"] and not attrs["symbols"]:
            raise serializers.ValidationError({"symbols": ["is required"]})
        return attrs | {"symbols": attrs["symbols"] or [attrs["symbol"]]}


class PriceRequest(serializers.Serializer[Any]):
    """The query of GET /prices/{event_id}."""

    numbers = numbers_field()


class SymbolsRequest(serializers.Serializer[Any]):
    """The query of GET /symbols."""

    q = SymbolPartField(f"a part of the symbol in any case: {SYMBOL_ALLOWED}", required=False, default=str)
    limit = WholeNumberField(
        1, MAX_SYMBOLS_LISTED, meaning="Rows of the page", required=False, default=DEFAULT_SYMBOLS_LISTED
    )
    cursor = SymbolPartField(
        "what `next` of the page before has", meaning="Where the page begins", required=False, default=str
    )


class RunsRequest(PageRequest):
    """The query of GET /jobs/{job_id}/runs."""

    before = IdField("the poll_id of a run: only older ones", required=False, default=None)
    state = WordListField(
        RunState.values, noun="state", meaning="Only runs of these", required=False, default=tuple
    )
    since = TimeField("; slots due then or later", meaning=SINCE, required=False, default=None)
    until = TimeField("; slots due before then", meaning=UNTIL, required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse times in the wrong order."""
        if attrs["since"] and attrs["until"]:
            _check_order(attrs)
        return attrs


class GapsRequest(serializers.Serializer[Any]):
    """The query of GET /jobs/{job_id}/gaps; the time is what pages go by."""

    limit = WholeNumberField(1, MAX_LIMIT, meaning="Ranges of the page", required=False, default=100)
    since = TimeField(
        f"; at most {LONGEST_WINDOW.days} days before `until`; left out: one day before it",
        meaning=SINCE,
        required=False,
        default=None,
    )
    until = TimeField("; slots due before then; left out: now", meaning=UNTIL, required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Fill in what was left out. Refuse times in the wrong order, and more than is read at once."""
        until = attrs["until"] or database_now()
        whole = attrs | {"until": until, "since": attrs["since"] or until - DAY}
        _check_order(whole)
        if whole["until"] - whole["since"] > LONGEST_WINDOW:
            raise serializers.ValidationError(
                {"since": [f"is more than {LONGEST_WINDOW.days} days before until"]}
            )
        return whole


def _check_order(attrs: dict[str, Any]) -> None:
    if attrs["since"] >= attrs["until"]:
        raise serializers.ValidationError({"since": ["is not before until"]})
