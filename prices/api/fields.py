"""The fields of requests: each takes one type and converts nothing. Its help text says what is allowed."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from prices.database.uuid7 import EPOCH
from prices.models.poll_job import MAX_SYMBOLS
from prices.symbols import (
    MAX_SYMBOL_LENGTH,
    SYMBOL_ALPHABET,
    normalise_symbol,
    normalise_symbols,
    unique_symbols,
)
from providers.keys import SIMULATED_PREFIX
from providers.registry import PROVIDER_NAMES, UnknownProviderError, normalise_name

SYMBOL_ALLOWED = f"1 to {MAX_SYMBOL_LENGTH} {SYMBOL_ALPHABET}"
SIMULATED_ALLOWED = f"the provider simulated serves those that begin with {SIMULATED_PREFIX}, and only those"
SYMBOLS_ALLOWED = f"a list of 1 to {MAX_SYMBOLS} symbols, each {SYMBOL_ALLOWED}; {SIMULATED_ALLOWED}"
UUID_PATTERN = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UUID = re.compile(UUID_PATTERN)
# With a sign: a number below 0 is told that it is out of range.
_DIGITS = re.compile("-?[0-9]{1,19}")
# RFC 3339, without its leap seconds and lower-case letters.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TIME_ALLOWED = "a time from 1970 on with its offset, as 2026-11-22T14:30:00Z (in a query + is written %2B)"
_T = TypeVar("_T")


def parse_uuid(data: Any) -> UUID | None:
    """Return the id that a text is, None where it is none."""
    # UUID() also takes braces, urn:uuid:, underscores and digits of other alphabets.
    return UUID(data) if isinstance(data, str) and _UUID.fullmatch(data) else None


class StrictField(serializers.Field[_T, Any, Any, Any], Generic[_T]):
    """A field that takes one type and converts nothing."""

    default_error_messages = {"required": "is required", "null": "must not be null"}


@extend_schema_field({"type": "string", "example": "AAPL"})
class SymbolField(StrictField[str]):
    """A symbol, upper-cased."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(help_text=f"{SYMBOL_ALLOWED}; {SIMULATED_ALLOWED}", **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the symbol's stored form."""
        symbol = normalise_symbol(data) if isinstance(data, str) else None
        if symbol is None:
            raise serializers.ValidationError("is not a symbol")
        return symbol


@extend_schema_field({"type": "string", "example": "AAP"})
class SymbolPartField(StrictField[str]):
    """A symbol or a part of one, upper-cased."""

    def __init__(self, allowed: str, **kwargs: Any) -> None:
        super().__init__(help_text=allowed, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the part in the case of stored symbols."""
        part = normalise_symbol(str(data))
        if part is None:
            raise serializers.ValidationError("is no part of a symbol")
        return part


@extend_schema_field(
    {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": MAX_SYMBOLS,
        "example": ["AAPL", "MSFT"],
    }
)
class SymbolsField(StrictField[list[str]]):
    """A list of symbols, upper-cased, repeats removed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(help_text=SYMBOLS_ALLOWED, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the symbols in their first order."""
        if not isinstance(data, list):
            raise serializers.ValidationError("is not a list")
        if not data:
            raise serializers.ValidationError("is empty")
        symbols = [normalise_symbol(item) if isinstance(item, str) else None for item in data]
        if None in symbols:
            position = symbols.index(None)
            raise serializers.ValidationError(f"item {position} ({data[position]!r:.60}) is not a symbol")
        unique = unique_symbols(cast("list[str]", symbols))
        if len(unique) > MAX_SYMBOLS:
            raise serializers.ValidationError(f"has {len(unique)} symbols")
        return unique


class WholeNumberField(StrictField[int]):
    """A JSON integer within bounds; in a query, its decimal digits. Not true, 1.0 or "60"."""

    def __init__(self, minimum: int, maximum: int, *, unit: str = "", **kwargs: Any) -> None:
        allowed = f"a whole number from {minimum} to {maximum} {unit}".strip()
        super().__init__(help_text=allowed, **kwargs)
        self.minimum = minimum
        self.maximum = maximum
        set_override(self, "field", {"type": "integer", "minimum": minimum, "maximum": maximum})

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if self.context["is_query"] and _DIGITS.fullmatch(data):
            data = int(data)
        if type(data) is not int:
            raise serializers.ValidationError("is not a whole number")
        if not self.minimum <= data <= self.maximum:
            raise serializers.ValidationError("is out of range")
        return data


@extend_schema_field({"type": "string", "nullable": True, "example": "finnhub"})
class ProviderField(StrictField[str]):
    """A provider's name in any case, or null."""

    def __init__(self, more: str = "", **kwargs: Any) -> None:
        allowed = f"one of {', '.join(PROVIDER_NAMES)}{more}; or left out"
        super().__init__(help_text=allowed, required=False, allow_null=True, default=None, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the provider's one name."""
        try:
            return normalise_name(data)
        except (UnknownProviderError, AttributeError, TypeError) as error:
            raise serializers.ValidationError("is not a provider") from error


@extend_schema_field({"type": "string", "format": "uuid"})
class IdField(StrictField[UUID]):
    """An id."""

    def __init__(self, allowed: str, **kwargs: Any) -> None:
        super().__init__(help_text=allowed, **kwargs)

    def to_internal_value(self, data: Any) -> UUID:
        """Return the id."""
        found = parse_uuid(data)
        if found is None:
            raise serializers.ValidationError("is not a uuid")
        return found


@extend_schema_field({"type": "boolean", "default": False})
class SwitchField(StrictField[bool]):
    """A query's true or false."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(help_text="true or false", **kwargs)

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean."""
        if data not in {"true", "false"}:
            raise serializers.ValidationError("is not a switch")
        return bool(data == "true")


class WordField(StrictField[str]):
    """One of some words."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        super().__init__(help_text=f"one of {', '.join(words)}" if len(words) > 1 else words[0], **kwargs)
        self._words = words
        set_override(self, "field", {"type": "string", "enum": list(words)})

    def to_internal_value(self, data: Any) -> str:
        """Return the word."""
        if data not in self._words:
            raise serializers.ValidationError("is not known")
        return str(data)


@extend_schema_field({"type": "string", "format": "date-time"})
class TimeField(StrictField[datetime]):
    """A time with its offset from UTC, as RFC 3339 writes it."""

    def __init__(self, more: str = "", **kwargs: Any) -> None:
        super().__init__(help_text=TIME_ALLOWED + more, **kwargs)

    def to_internal_value(self, data: Any) -> datetime:
        """Return the time in UTC."""
        if not isinstance(data, str) or _TIME.fullmatch(data) is None:
            raise serializers.ValidationError("is not a time")
        try:
            moment = datetime.fromisoformat(data).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise serializers.ValidationError("is not a time") from error
        if moment < EPOCH:
            raise serializers.ValidationError("is too early")
        return moment


@extend_schema_field({"type": "string", "example": "2026-11-22"})
class MomentField(TimeField):
    """A time, or a date: the beginning of that day in UTC."""

    def __init__(self, more: str = "", **kwargs: Any) -> None:
        super().__init__(f"; or a date as 2026-11-22, which begins at 00:00 UTC{more}", **kwargs)

    def to_internal_value(self, data: Any) -> datetime:
        """Return the time in UTC."""
        is_date = isinstance(data, str) and _DATE.fullmatch(data) is not None
        return super().to_internal_value(f"{data}T00:00:00Z" if is_date else data)


@extend_schema_field({"type": "string", "example": "AAPL,MSFT"})
class SymbolListField(StrictField[list[str]]):
    """Symbols with commas between, upper-cased, repeats removed."""

    def __init__(self, **kwargs: Any) -> None:
        allowed = f"1 to {MAX_SYMBOLS} symbols with commas between, each {SYMBOL_ALLOWED}"
        super().__init__(help_text=allowed, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the symbols in their first order."""
        named = str(data).split(",")
        symbols = normalise_symbols(named)
        if symbols is None:
            wrong = next(name for name in named if normalise_symbol(name) is None)
            raise serializers.ValidationError(f"{wrong!r:.60} is not a symbol")
        unique = unique_symbols(symbols)
        if len(unique) > MAX_SYMBOLS:
            raise serializers.ValidationError(f"has {len(unique)} symbols")
        return unique


class WordListField(StrictField[list[str]]):
    """One or more of some words with commas between; `noun` is what each of them is."""

    def __init__(self, words: Sequence[str], *, noun: str, example: str, **kwargs: Any) -> None:
        super().__init__(help_text=f"one or more of {', '.join(words)}, with commas between", **kwargs)
        self._words = words
        self._noun = noun
        set_override(self, "field", {"type": "string", "example": example})

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the words."""
        found = str(data).split(",")
        unknown = next((word for word in found if word not in self._words), None)
        if unknown is not None:
            raise serializers.ValidationError(f"{unknown!r:.60} is not a {self._noun}")
        return found
