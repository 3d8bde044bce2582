"""Reading an answer: JSON with exact numbers, times, waiting times, and one entry for each symbol.

Everything here is pure. What cannot be read raises ProviderError, and `read_answer` turns that into
the entry of the symbol that it concerns.
"""

import contextlib
import email.utils
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar

from providers.base import (
    ErrorKind,
    ProviderError,
    Quote,
    RawAnswer,
    Results,
    malformed,
    unknown_symbol,
    upstream_error,
)

# Clocks differ: a provider's time may lie this far ahead of ours. Beyond, it is no time of a trade.
MAX_AHEAD = timedelta(seconds=60)
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
MAX_RETRY_AFTER_S = 86_400.0

# Stands for a value that an object gives twice: no reader takes it for a number, a text or an object.
AMBIGUOUS = object()

_CURRENCY = re.compile(r"[A-Za-z]{3,5}")
_SECONDS = re.compile(r"[0-9]{1,9}")


Row = TypeVar("Row")
ReadQuote = Callable[[str], Quote]


def read_answer(answer: RawAnswer, open_answer: Callable[[RawAnswer], ReadQuote]) -> Results:
    """Give one entry for each symbol of the answer: what `open_answer`'s reader makes of it.

    A ProviderError of the reader is the entry of its symbol, one of `open_answer` that of all.
    """
    try:
        read = open_answer(answer)
    except ProviderError as error:
        return dict.fromkeys(answer.symbols, _bare(error))
    return {symbol: _entry(read, symbol) for symbol in answer.symbols}


def _entry(read: ReadQuote, symbol: str) -> Quote | ProviderError:
    try:
        return read(symbol)
    except ProviderError as error:
        return _bare(error)


def _bare(error: ProviderError) -> ProviderError:
    # The traceback would keep the answer in memory, and show it to whoever prints the error.
    return error.with_traceback(None)


class Rows(Generic[Row]):
    """The rows of one answer by their symbol, without regard to case."""

    def __init__(self, rows: Iterable[tuple[object, Row]], *, asked: Iterable[str]) -> None:
        self._rows: dict[object, list[Row]] = {}
        for symbol, row in rows:
            self._rows.setdefault(symbol.upper() if isinstance(symbol, str) else None, []).append(row)
        self._has_strangers = not self._rows.keys() <= {symbol.upper() for symbol in asked}

    def one(self, symbol: str) -> Row:
        """Give the symbol's only row.

        Raises ProviderError: unknown_symbol where it was left out, malformed where it is there twice,
        or where the answer tells of a symbol that nobody asked for in its place.
        """
        rows = self._rows.get(symbol.upper(), [])
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise malformed("the answer gives the symbol twice")
        if self._has_strangers:
            raise malformed("the answer is about another symbol")
        raise unknown_symbol()


def read_json(body: bytes) -> Any:
    """Read a JSON document: numbers are Decimal, NaN and Infinity too, a repeated key is AMBIGUOUS.

    Raises ProviderError: upstream_error for HTML, malformed for whatever else is no JSON.
    """
    if is_html(body):
        raise upstream_error("the answer is a web page")
    with contextlib.suppress(ValueError, RecursionError):  # RecursionError: nested too deeply
        return json.loads(
            body.decode("utf-8-sig"),
            parse_float=_number,
            parse_int=_number,
            parse_constant=Decimal,
            object_pairs_hook=_object,
        )
    # Not raised from the decoder's error: that one holds the whole document.
    raise malformed("the answer is not JSON")


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON document that has to be an object; raises like `read_json`."""
    document = read_json(body)
    if not isinstance(document, dict):
        raise malformed("the answer is not a JSON object")
    return document


def is_html(body: bytes) -> bool:
    """Say whether the body is a web page (or XML): no provider answers so on purpose."""
    return begins_with(body, b"<")


def begins_with(body: bytes, beginning: bytes) -> bool:
    """Say whether the body begins so, behind a byte order mark and any white space."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(beginning)


def to_number(value: object) -> Decimal:
    """Give a JSON number; raises ProviderError (malformed) where it is text, null, missing, true ..."""
    if not isinstance(value, Decimal):
        raise malformed("the price is missing or not a number")
    return value


def to_time(epoch: object, received_at: datetime) -> datetime | None:
    """Give the UTC time of an epoch in whole seconds; None where there is none (missing, null, 0).

    Raises ProviderError (malformed) where it is no number, before 1990, or over 60 s in the future.
    """
    if epoch is None or epoch == 0:
        return None
    if not isinstance(epoch, Decimal) or not epoch.is_finite():
        raise malformed("the time of the price is not a number")
    # Compared before it is converted: as an int, 1E+1000000 would take minutes and a megabyte.
    if not EARLIEST.timestamp() <= epoch <= (received_at + MAX_AHEAD).timestamp():
        raise malformed("the time of the price is before 1990 or in the future")
    return datetime.fromtimestamp(int(epoch), tz=UTC)


def check_time(observed_at: datetime, received_at: datetime) -> datetime:
    """Give the time back where it lies between 1990 and now, else raise ProviderError (malformed)."""
    if not EARLIEST <= observed_at <= received_at + MAX_AHEAD:
        raise malformed("the time of the price is before 1990 or in the future")
    return observed_at


def to_currency(value: object) -> str | None:
    """Give the currency as the provider writes it (`GBp` is not `GBP`), None where it tells none."""
    return value if isinstance(value, str) and _CURRENCY.fullmatch(value) else None


def status_error(answer: RawAnswer) -> ProviderError:
    """Give the error of an answer that says nothing beside its HTTP status: a limit, or a fault."""
    if answer.status == 429:
        return rate_limited(answer)
    return upstream_error(f"the provider answered HTTP {answer.status}")


def rate_limited(answer: RawAnswer, *, retry_after: float | None = None) -> ProviderError:
    """Give the error of a limit that was reached; the header Retry-After goes before `retry_after`."""
    return ProviderError(
        kind=ErrorKind.RATE_LIMITED,
        message="the limit of requests is reached",
        retry_after=retry_after_s(answer) or retry_after,
    )


def retry_after_s(answer: RawAnswer) -> float | None:
    """Give the seconds to wait by the header Retry-After (seconds or a date), at most a day."""
    text = answer.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return within_a_day(float(text))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        return None
    return within_a_day((moment - answer.received_at).total_seconds())


def within_a_day(seconds: float) -> float | None:
    """Give a waiting time of at most a day; None where there is nothing to wait for."""
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent of twenty digits: this number is lost, its neighbours are not
        return Decimal("NaN")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                values[key] = AMBIGUOUS
            seen.add(key)
    return values
