"""Reading an answer: JSON with exact numbers, times, waiting times, and one entry for each symbol.

Everything here is pure. What cannot be read raises ProviderError, and `read_answer` turns that into
the entry of the symbol that it concerns.
"""

import contextlib
import email.utils
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import MAXYEAR, UTC, datetime, timedelta
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
# A header that tells of a longer wait is wrong, or a price is worth one request in vain each so often.
LONGEST_WAIT_S = 6 * 3600.0
# Prices before and after the hours lie outside of the day's range, and a day's price can double.
RANGE_FACTOR = 3

# Stands for a value that an object gives twice: no reader takes it for a number, a text or an object. Where
# a price stands in an object, or the way to one, none may stand beside it (`check_unique`).
AMBIGUOUS = object()

_CURRENCY = re.compile(r"[A-Za-z]{3,5}")
# One value of Retry-After; a date has a comma of its own behind the day of the week.
_WAIT = re.compile(r"(?:[A-Za-z]+,)?[^,]+")
_WHOLE = re.compile(r"[0-9]+")

Row = TypeVar("Row")
ReadQuote = Callable[[str], Quote]


def read_answer(answer: RawAnswer, open_answer: Callable[[RawAnswer], ReadQuote]) -> Results:
    """Return one entry for each symbol of the answer: what `open_answer`'s reader makes of it.

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
        """Return the symbol's only row.

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
    """Read a JSON document that has to be an object with each name once; raises like `read_json`."""
    document = read_json(body)
    if not isinstance(document, dict):
        raise malformed("the answer is not a JSON object")
    check_unique(document)
    return document


def check_unique(fields: Mapping[str, Any]) -> None:
    """Raise ProviderError (malformed) where an object gives a name twice, whatever its name."""
    if any(value is AMBIGUOUS for value in fields.values()):
        raise malformed("the answer gives a name twice")


def is_html(body: bytes) -> bool:
    """Say whether the body is a web page (or XML): no provider answers so on purpose."""
    return begins_with(body, b"<")


def begins_with(body: bytes, beginning: bytes) -> bool:
    """Say whether the body begins so, behind a byte order mark and any white space."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(beginning)


def to_number(value: object) -> Decimal:
    """Return a JSON number; raises ProviderError (malformed) where it is text, null, missing, true ..."""
    if not isinstance(value, Decimal):
        raise malformed("the price is missing or not a number")
    return value


def check_ranges(price: Decimal, *ranges: tuple[object, object], confirmed_by: Iterable[object] = ()) -> None:
    """Raise ProviderError (malformed) where a price lies beyond three times a range of the same answer.

    Ranges are a low and a high each. Another price of the answer within a factor of three confirms it: ranges
    are wrong, too, such as those of the day after a split. What is missing, zero or no number says nothing.
    """
    bounds = [(_bound(low), _bound(high)) for low, high in ranges]
    if all(_lies_within(price, low, high) for low, high in bounds):
        return
    others = filter(None, map(_bound, confirmed_by))
    if not any(_lies_within(price, other, other) for other in others):
        raise malformed("the price contradicts its own range")


def _lies_within(price: Decimal, low: Decimal | None, high: Decimal | None) -> bool:
    if low and high and low > high:
        low, high = high, low
    return not ((low and price * RANGE_FACTOR < low) or (high and price / RANGE_FACTOR > high))


def _bound(value: object) -> Decimal | None:
    if isinstance(value, str):
        value = _number(value)
    return value if isinstance(value, Decimal) and value.is_finite() and value > 0 else None


def to_time(epoch: object, received_at: datetime) -> datetime | None:
    """Return the UTC time of an epoch in whole seconds; None where there is none (missing, null, 0).

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
    """Return the time if it lies between 1990 and now, else raise ProviderError (malformed)."""
    if not EARLIEST <= observed_at <= received_at + MAX_AHEAD:
        raise malformed("the time of the price is before 1990 or in the future")
    return observed_at


def to_currency(value: object, *, quoted: str | None = None) -> str | None:
    """Return the currency as the provider writes it (`GBp` is not `GBP`), None where it tells none.

    `quoted` is the one that the symbol itself names. Raises ProviderError (malformed) for any other.
    """
    currency = value if isinstance(value, str) and _CURRENCY.fullmatch(value) else None
    if quoted is not None and currency not in {None, quoted}:
        raise malformed("the currency contradicts its own symbol")
    return currency


def speaks_for_itself(answer: RawAnswer) -> bool:
    """Say whether the words of an answer are the provider's own, which depends on its status.

    Redirects, and errors from 500 on, have those of whatever stands before it.
    """
    return answer.status == 200 or 400 <= answer.status < 500


def status_error(answer: RawAnswer) -> ProviderError:
    """Return the error of an answer that says nothing beside its HTTP status: a limit, or a fault."""
    if answer.status == 429:
        return rate_limited(answer)
    return upstream_error(f"the provider answered HTTP {answer.status}")


def rate_limited(answer: RawAnswer, *, retry_after: float | None = None) -> ProviderError:
    """Return the error of a limit that was reached; the header Retry-After goes before `retry_after`.

    None of them counts for more than LONGEST_WAIT_S, and the message says so.
    """
    told_s = retry_after_s(answer) or retry_after
    message = "the limit of requests is reached"
    if told_s is not None and told_s > LONGEST_WAIT_S:
        told_s = LONGEST_WAIT_S
        hours = f"{LONGEST_WAIT_S / 3600:g} h"
        message += f"; the provider says for over {hours}, and is asked again after {hours}"
    return ProviderError(kind=ErrorKind.RATE_LIMITED, message=message, retry_after=told_s)


def retry_after_s(answer: RawAnswer) -> float | None:
    """Return the seconds to wait by the header Retry-After, however many; None where it tells of none.

    It is a number of seconds or a date. Of several the longest counts, and what cannot be read does not.
    """
    values = _WAIT.findall(answer.headers.get("retry-after", ""))
    waits = [_wait_s(value.strip(), answer.received_at) for value in values]
    return max((wait for wait in waits if wait > 0), default=None)


def until_epoch_s(text: str, answer: RawAnswer) -> float | None:
    """Return the seconds from the answer to an epoch in seconds; None where it is past, or none at all."""
    if _WHOLE.fullmatch(text) is None:
        return None
    seconds = float(text) - answer.received_at.timestamp()
    return seconds if seconds > 0 else None


def _wait_s(value: str, received_at: datetime) -> float:
    if _WHOLE.fullmatch(value):
        return float(value)
    parts = email.utils.parsedate_tz(value)
    if parts is None:
        return 0.0
    try:
        moment = datetime(*parts[:6], tzinfo=UTC) - timedelta(seconds=parts[9] or 0)
    except (ValueError, OverflowError):
        # No calendar has the year 10,000.
        return math.inf if parts[0] > MAXYEAR else 0.0
    return (moment - received_at).total_seconds()


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
