"""The symbols that users may write, and the two worlds that never mix: simulated and real."""

import re
from collections.abc import Iterable, Sequence

from providers.keys import SIMULATED_PREFIX

MAX_SYMBOL_LENGTH = 32
SYMBOL_ALPHABET = "letters, digits and . - _ & = ^ : /"

_PATTERN = rf"[A-Z0-9.\-_&=^:/]{{1,{MAX_SYMBOL_LENGTH}}}"
_SYMBOL = re.compile(_PATTERN, re.ASCII)
_SYMBOLS = re.compile(rf"{_PATTERN}(?: {_PATTERN})*", re.ASCII)


def is_symbol(text: str) -> bool:
    """Return whether the text is a symbol in its stored form: upper case, 1 to 32 allowed characters."""
    return _SYMBOL.fullmatch(text) is not None


def normalise_symbol(text: str) -> str | None:
    """Return the symbol's stored form, or None where the text is no symbol."""
    # Not str.upper() first: it turns some letters outside the alphabet into letters inside it.
    return text.upper() if text.isascii() and is_symbol(text.upper()) else None


def normalise_symbols(texts: Sequence[str]) -> list[str] | None:
    """Return the symbols' stored forms, or None where any of the texts is no symbol."""
    # At once, which takes a fifth of the time.
    joined = " ".join(texts)
    upper = joined.upper()
    if not (joined.isascii() and _SYMBOLS.fullmatch(upper)):
        return None
    symbols = upper.split(" ")
    # More where a text has a blank.
    return symbols if len(symbols) == len(texts) else None


def unique_symbols(symbols: Iterable[str]) -> list[str]:
    """Return the symbols in their first order, repeats removed."""
    return list(dict.fromkeys(symbols))


def is_simulated(symbol: str) -> bool:
    """Return whether the symbol belongs to the simulated provider, and to it alone."""
    return symbol.startswith(SIMULATED_PREFIX)
