"""What requests may hold, in JSON Schema.

The patterns are regular expressions of ECMA-262, as JSON Schema has them, that Python reads alike.
"""

from collections.abc import Iterable
from typing import Any

from prices.models.poll_job import MAX_SYMBOLS
from prices.symbols import MAX_SYMBOL_LENGTH
from providers.keys import SIMULATED, SIMULATED_PREFIX
from providers.registry import ALIASES, PROVIDER_NAMES


def _whole(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _in_any_case(word: str) -> str:
    # JSON Schema has no flag for that.
    return "".join(f"[{letter.upper()}{letter.lower()}]" if letter.isalpha() else letter for letter in word)


def _one_of(words: Iterable[str]) -> str:
    return f"({'|'.join(words)})"


UUID_PATTERN = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
DATE_PATTERN = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
# RFC 3339, without its leap seconds and lower-case letters.
CLOCK_PATTERN = r"T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
_SINCE_1970 = "(19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}"
_SYMBOL = f"[A-Za-z0-9._&=^:/-]{{1,{MAX_SYMBOL_LENGTH}}}"
_SIMULATED = _in_any_case(SIMULATED_PREFIX)

UUID = {"type": "string", "format": "uuid"}
DATE = {"format": "date", **_whole(_SINCE_1970)}
TIME = {"format": "date-time", **_whole(_SINCE_1970 + CLOCK_PATTERN)}
MOMENT = {"anyOf": [TIME, DATE]}
SYMBOL = _whole(_SYMBOL)
PROVIDER = _whole(_one_of(map(_in_any_case, (*PROVIDER_NAMES, *ALIASES))))
CURSOR = _whole(f"{UUID_PATTERN}(,{_SYMBOL})?")

HAS_SIMULATED = {"contains": {"pattern": f"^{_SIMULATED}"}}
SYMBOLS = {
    "type": "array",
    "items": SYMBOL,
    "minItems": 1,
    # Repeats do not count, which JSON Schema cannot say: what it allows is taken, and some more.
    "maxItems": MAX_SYMBOLS,
    "if": HAS_SIMULATED,
    "then": {"items": {"pattern": f"^{_SIMULATED}"}},
}
# Not an array: some clients send one as several parameters of this name, whatever its `explode` says.
SYMBOL_LIST = _whole(f"{_SYMBOL}(,{_SYMBOL}){{0,{MAX_SYMBOLS - 1}}}")
UNMIXED_SYMBOL_LIST = {
    **SYMBOL_LIST,
    "if": {"pattern": f"(^|,){_SIMULATED}"},
    "then": {"pattern": f"^{_SIMULATED}[^,]*(,{_SIMULATED}[^,]*)*$"},
}
# Of a body with `symbols` and `provider`.
SIMULATED_APART = {
    "if": {"properties": {"symbols": HAS_SIMULATED}},
    "then": {"properties": {"provider": {"pattern": f"^{_in_any_case(SIMULATED)}$"}}},
    "else": {"properties": {"provider": {"not": _whole(_in_any_case(SIMULATED))}}},
}


def word_list(words: Iterable[str]) -> dict[str, Any]:
    """Return the schema of one or more of these words with commas between."""
    word = _one_of(words)
    return _whole(f"{word}(,{word})*")
