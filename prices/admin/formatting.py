"""Texts as the admin's lists and pages show them."""

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

# Of a text in a list; the row's own page shows it all.
LONGEST_TEXT = 90


def unbroken(text: str) -> SafeString:
    """Return the text in one line."""
    return format_html('<span style="white-space: nowrap">{}</span>', text)


def keeping_units(text: str) -> str:
    """Return a job's name such that no line begins with the unit of its interval."""
    symbols, every, rest = text.rpartition(" every ")
    interval, of, hours = rest.partition(" in ")
    return symbols + every + interval.replace(" ", "\u00a0") + of + hours


def shortened(text: str) -> SafeString:
    """Return the beginning of a long text, wide enough to be read; the whole text is its title."""
    shown = Truncator(text).chars(LONGEST_TEXT)
    return format_html('<div style="min-width: 15em" title="{}">{}</div>', text, shown)


def preformatted(text: str) -> SafeString:
    """Return the text with its own line breaks."""
    return format_html('<pre style="white-space: pre-wrap; margin: 0">{}</pre>', text)


def readable(value: bytes | memoryview | None) -> SafeString:
    """Return bytes as text; what is none is escaped."""
    return preformatted("" if value is None else bytes(value).decode(errors="backslashreplace"))
