"""Symbols and providers."""

from typing import Any, cast

from rest_framework import serializers

from prices.api.fields import json_schema
from prices.api.fields.base import StrictField
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


class SymbolField(StrictField[str]):
    """A symbol, upper-cased."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(f"{SYMBOL_ALLOWED}; {SIMULATED_ALLOWED}", schema=json_schema.SYMBOL, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the symbol's stored form."""
        symbol = normalise_symbol(data) if isinstance(data, str) else None
        if symbol is None:
            raise serializers.ValidationError("is not a symbol")
        return symbol


class SymbolPartField(StrictField[str]):
    """A symbol or a part of one, upper-cased."""

    def __init__(self, allowed: str, **kwargs: Any) -> None:
        super().__init__(allowed, schema=json_schema.SYMBOL, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the part in the case of stored symbols."""
        part = normalise_symbol(str(data))
        if part is None:
            raise serializers.ValidationError("is no part of a symbol")
        return part


class SymbolsField(StrictField[list[str]]):
    """A list of symbols, upper-cased, repeats removed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(SYMBOLS_ALLOWED, schema=json_schema.SYMBOLS, **kwargs)

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


class SymbolListField(StrictField[list[str]]):
    """Symbols with commas between, upper-cased, repeats removed: up to `most`; `may_mix` kinds of them."""

    def __init__(self, *, most: int = MAX_SYMBOLS, may_mix: bool = True, **kwargs: Any) -> None:
        self._most = most
        allowed = f"1 to {most} symbols with commas between, each {SYMBOL_ALLOWED}"
        schema = json_schema.SYMBOL_LIST if may_mix else json_schema.UNMIXED_SYMBOL_LIST
        super().__init__(allowed, schema=schema, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the symbols in their first order."""
        named = str(data).split(",")
        symbols = normalise_symbols(named)
        if symbols is None:
            wrong = next(name for name in named if normalise_symbol(name) is None)
            raise serializers.ValidationError(f"{wrong!r:.60} is not a symbol")
        unique = unique_symbols(symbols)
        if len(unique) > self._most:
            raise serializers.ValidationError(f"has {len(unique)} symbols")
        return unique


class ProviderField(StrictField[str]):
    """A provider's name in any case."""

    def __init__(self, more: str = "", **kwargs: Any) -> None:
        allowed = f"one of {', '.join(PROVIDER_NAMES)}{more}; or left out"
        super().__init__(
            allowed,
            schema=json_schema.PROVIDER,
            more="In any case of letters.",
            required=False,
            default=None,
            **kwargs,
        )

    def to_internal_value(self, data: Any) -> str:
        """Return the provider's one name."""
        try:
            return normalise_name(data)
        except (UnknownProviderError, AttributeError, TypeError) as error:
            raise serializers.ValidationError("is not a provider") from error
