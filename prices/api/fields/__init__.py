"""The fields of requests: each takes one type and converts nothing, and says what it takes in JSON Schema."""

from prices.api.fields.base import StrictField
from prices.api.fields.json_schema import UUID_PATTERN
from prices.api.fields.symbols import (
    SIMULATED_ALLOWED,
    SYMBOL_ALLOWED,
    SYMBOLS_ALLOWED,
    ProviderField,
    SymbolField,
    SymbolListField,
    SymbolPartField,
    SymbolsField,
)
from prices.api.fields.values import (
    SINCE,
    UNTIL,
    IdField,
    MomentField,
    SwitchField,
    TimeField,
    WholeNumberField,
    WordField,
    WordListField,
    parse_uuid,
)

__all__ = [
    "SIMULATED_ALLOWED",
    "SINCE",
    "SYMBOLS_ALLOWED",
    "SYMBOL_ALLOWED",
    "UNTIL",
    "UUID_PATTERN",
    "IdField",
    "MomentField",
    "ProviderField",
    "StrictField",
    "SwitchField",
    "SymbolField",
    "SymbolListField",
    "SymbolPartField",
    "SymbolsField",
    "TimeField",
    "WholeNumberField",
    "WordField",
    "WordListField",
    "parse_uuid",
]
