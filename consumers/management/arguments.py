"""What commands of the consumer take."""

from datetime import datetime

from django.core.management.base import CommandError
from django.utils.dateparse import parse_datetime

from prices.symbols import SYMBOL_ALPHABET, normalise_symbol


def parse_symbol(text: str | None) -> str | None:
    """Return the symbol as it is stored; raise CommandError where it is none."""
    if text is None:
        return None
    symbol = normalise_symbol(text)
    if symbol is None:
        raise CommandError(f"--symbol takes up to 32 of: {SYMBOL_ALPHABET}.", returncode=2)
    return symbol


def parse_since(text: str | None) -> datetime | None:
    """Return the time; raise CommandError where it is none, or has no zone."""
    if text is None:
        return None
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandError("--since takes a time with its zone, such as 2026-11-23T09:30:00Z.", returncode=2)
    return moment
