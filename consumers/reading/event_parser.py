"""A thousand messages at a time into columns of events, by msgspec and numpy.

`decode_event` alone defines what an event is. What is read here are batches in which every message is one,
whatever the layout of its JSON; all else is refused, and may be an event all the same: one with an exponent
in its price, for instance.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import TypeAlias, cast

import msgspec
import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from consumers.averages.columns import (
    HIGH,
    LOW,
    MICROSECOND,
    NO_TIME,
    Events,
    Flags,
    Indices,
    Integers,
    Series,
    factorize,
    parse_times,
    parse_uuids,
    text_table,
)
from prices.database.uuid7 import epoch_ms
from prices.publishing.events import (
    FIELD_QUOTES,
    MAX_AHEAD,
    UNKNOWN_PRECISION,
    VERSION,
    Headers,
    fields_decoder,
    has_repeated_names,
    read_currency,
    read_source,
)
from prices.symbols import MAX_SYMBOL_LENGTH, is_symbol
from providers.base import MAX_DECIMALS, MAX_INTEGER_DIGITS

# A message may have a later time, which no datetime holds.
LAST_MS = epoch_ms(datetime(9999, 12, 31, tzinfo=UTC))
_MAX_AHEAD_MS = MAX_AHEAD // MICROSECOND // 1000
_QUOTE, _DOT, _ZERO = b'".0'
_ID_LENGTH = 36
_PRICE_LENGTH = MAX_INTEGER_DIGITS + 1 + MAX_DECIMALS
# What a digit adds to the whole number, and to the fraction, by its distance from the dot: -1 stands last.
_WEIGHTS = np.zeros((2, 2 * _PRICE_LENGTH), dtype=np.int64)
_WEIGHTS[0, 1 : MAX_INTEGER_DIGITS + 1] = 10 ** np.arange(MAX_INTEGER_DIGITS)
_WEIGHTS[1, -MAX_DECIMALS:] = 10 ** np.arange(MAX_DECIMALS)

# What the outbox writes, but for days that no month has.
_CANONICAL = re.compile(
    rb'\{"event_id":"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"'
    rb',"symbol":"([A-Z0-9.\-_&=^:/]{1,%d})"'
    rb',"price":(?=[^,]*[1-9])(?:0|[1-9]\d{0,%d})(?:\.\d{1,%d})?'
    rb',"timestamp":"(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d'
    rb'(?:\.\d{1,6})?Z","source":"[a-z_]{1,64}","raw_response_id":"[0-9a-f-]*"\}'
    % (MAX_SYMBOL_LENGTH, MAX_INTEGER_DIGITS - 1, MAX_DECIMALS)
)
# Stands in a message for headers that cannot be read.
_UNREADABLE: list[tuple[str, str | bytes | None]] = []
# The outbox writes these first.
_HEADER_NAMES = ("v", "precision", "currency")
_first_headers = itemgetter(0, 1, 2)
HeaderValue: TypeAlias = str | bytes | None
HeaderValues: TypeAlias = tuple[HeaderValue, HeaderValue, HeaderValue]


class NonCanonicalError(ValueError):
    """A message of the batch is not read here: `decode_event` says what it is."""


def parse_batch(messages: Sequence[Message]) -> Events:
    """Return the events of these messages, in their order. Raise ValueError where one is none."""
    keys, values = list(map(Message.key, messages)), list(map(Message.value, messages))
    if None in keys or None in values:
        raise NonCanonicalError("key or value")
    ids, symbols, prices, times, sources = _fields_of(cast(list[bytes], values))
    names, name_codes = _symbols(cast(list[bytes], keys), symbols)
    headers, header_codes = _header_values(headers_of(messages))
    # Headers that differ in their precision may have the same currency.
    currencies, currency_codes = factorize([read_currency(each[2]) for each in headers])
    series, codes = _series(names, name_codes, currencies, currency_codes[header_codes])
    has_time = np.array([precision != UNKNOWN_PRECISION for _version, precision, _currency in headers])
    source_names, source_codes = factorize(sources)
    points = np.concatenate([_ids(ids, messages), _prices(prices)], axis=1)
    return Events(
        series=series,
        codes=codes,
        points=points,
        sources=list(map(read_source, source_names)),
        source_codes=source_codes,
        observed=_times(times, has_time=has_time[header_codes]),
    )


def are_canonical(messages: Sequence[Message]) -> list[bool]:
    """Return of each message whether it looks like one of the outbox's, which `parse_batch` reads.

    A cheap guess, by which an unusual message does not have all of its batch read by `decode_event`.
    """
    return list(map(_is_canonical, messages, headers_of(messages)))


def headers_of(messages: Sequence[Message]) -> list[Headers | None]:
    """Return each message's headers; None where the name of one is no UTF-8."""
    found: list[Headers | None] = []
    # Called by `map`, whose C sees that confluent-kafka gives a list and sets an exception, too: Python's own
    # calls, once they are warm, go on with the list, and the exception comes up anywhere.
    left = cast(Iterator[Headers | None], map(Message.headers, messages))
    while len(found) < len(messages):
        try:
            # One by one, so that the place of the one that fails is known.
            for headers in left:
                found.append(None if headers is _UNREADABLE else headers or ())  # noqa: PERF401
        except (SystemError, UnicodeDecodeError):
            # So confluent-kafka fails, once: the next time it gives a list with a hole, and whoever touches
            # that hole ends the process.
            messages[len(found)].set_headers(_UNREADABLE)
            found.append(None)
    return found


def _is_canonical(message: Message, headers: Headers | None) -> bool:
    found = _CANONICAL.fullmatch(message.value() or b"")
    if found is None or not headers or _values_of(headers)[0] != VERSION:
        return False
    high, low, symbol = found.groups()
    clock, broker_ms = message.timestamp()
    has_time = clock != TIMESTAMP_NOT_AVAILABLE and 0 <= broker_ms <= LAST_MS
    return has_time and symbol == message.key() and int(high + low, 16) <= broker_ms + _MAX_AHEAD_MS


def _fields_of(
    values: list[bytes],
) -> tuple[Sequence[str], Sequence[str], Sequence[msgspec.Raw], Sequence[str], Sequence[str]]:
    """Return the ids, symbols, prices, times and sources of values that are an event's JSON."""
    try:
        fields = list(map(fields_decoder.decode, values))
    except (msgspec.DecodeError, RecursionError) as error:
        raise NonCanonicalError("JSON") from error
    # Each has the quotes of its fields at least.
    letters = np.frombuffer(b"".join(values), dtype=np.uint8)
    if np.count_nonzero(letters == _QUOTE) != FIELD_QUOTES * len(values) and any(
        map(has_repeated_names, values)
    ):
        raise NonCanonicalError("a name twice")
    ids, symbols, prices, times, sources, _raw_ids = zip(*map(msgspec.structs.astuple, fields), strict=True)
    return ids, symbols, prices, times, sources


def _symbols(keys: list[bytes], symbols: Sequence[str]) -> tuple[list[str], Indices]:
    """Return each symbol once, and the index of each message's among them."""
    distinct, codes = factorize(keys)
    names = list(map(_symbol, distinct))
    if list(map(names.__getitem__, codes.tolist())) != list(symbols):
        raise NonCanonicalError("key")
    return names, codes


@lru_cache(maxsize=50_000)
def _symbol(key: bytes) -> str:
    symbol = key.decode()
    if not is_symbol(symbol):
        raise NonCanonicalError("symbol")
    return symbol


def _series(
    symbols: list[str], symbol_codes: Indices, currencies: list[str | None], currency_codes: Indices
) -> tuple[list[Series], Indices]:
    """Return each symbol with a currency once, and the index of each message's among them."""
    if len(currencies) == 1:
        return [(symbol, currencies[0]) for symbol in symbols], symbol_codes
    count = len(currencies)
    pairs, codes = np.unique(symbol_codes * count + currency_codes, return_inverse=True)
    return [(symbols[pair // count], currencies[pair % count]) for pair in pairs.tolist()], codes


def _ids(texts: Sequence[str], messages: Sequence[Message]) -> Integers:
    """Return ids in halves, (n, 2), each a UUIDv7 of before its message's time."""
    if set(map(len, texts)) != {_ID_LENGTH}:
        raise NonCanonicalError("event_id")
    halves = parse_uuids("".join(texts).encode("ascii"))
    clocks, times = zip(*map(Message.timestamp, messages), strict=True)
    broker_ms = np.array(times, dtype=np.int64)
    if TIMESTAMP_NOT_AVAILABLE in clocks or broker_ms.min() < 0 or broker_ms.max() > LAST_MS:
        raise NonCanonicalError("timestamp of the message")
    high, low = (halves[:, half].view(np.uint64) ^ np.uint64(1 << 63) for half in (HIGH, LOW))
    is_ours = (high >> np.uint64(12) & np.uint64(0xF) == 7) & (low >> np.uint64(62) == 0b10)
    if not np.all(is_ours & ((high >> np.uint64(16)).astype(np.int64) <= broker_ms + _MAX_AHEAD_MS)):
        raise NonCanonicalError("event_id")
    return halves


def _prices(numbers: Sequence[msgspec.Raw]) -> Integers:
    """Return prices, (n, 2): whole numbers, and the parts of one."""
    sizes = list(map(len, numbers))
    if max(sizes) > _PRICE_LENGTH:
        raise NonCanonicalError("price")
    letters, lengths = text_table(b"".join(numbers), sizes, rows=max(sizes))
    indices = np.arange(len(letters))[:, np.newaxis]
    is_inside = indices < lengths
    is_dot = (letters == _DOT) & is_inside
    digits = letters - np.uint8(_ZERO)
    is_digit = (digits <= 9) & is_inside
    dots = np.where(is_dot.any(axis=0), is_dot.argmax(axis=0), lengths)
    decimals = lengths - dots - 1
    if not _are_sound(dots, decimals) or is_digit.sum() + (decimals >= 0).sum() != lengths.sum():
        raise NonCanonicalError("price")
    # JSON has no zeros before a number.
    if ((digits[0] == 0) & (dots > 1)).any():
        raise NonCanonicalError("price")
    # 1 for the last digit before the dot, and -1 for the first one after it.
    exponents, values = dots - indices, (digits * is_digit).astype(np.int64)
    points = np.stack([(values * weights[exponents]).sum(axis=0) for weights in _WEIGHTS], axis=1)
    if not points.any(axis=1).all():
        raise NonCanonicalError("price")
    return points


def _are_sound(digits: Indices, decimals: Indices) -> bool:
    """Return whether prices may have so many digits before the dot and after it (-1: there is no dot)."""
    return bool(
        np.all((digits >= 1) & (digits <= MAX_INTEGER_DIGITS) & (decimals != 0) & (decimals <= MAX_DECIMALS))
    )


def _times(texts: Sequence[str], *, has_time: Flags) -> Integers:
    if has_time.all():
        return parse_times(texts)
    times = np.full(len(texts), NO_TIME, dtype=np.int64)
    times[has_time] = parse_times(list(compress(texts, has_time.tolist())))
    return times


def _header_values(headers: Sequence[Headers | None]) -> tuple[list[HeaderValues], Indices]:
    """Return the distinct values of version, precision and currency, and the index of each message's."""
    if None in headers:
        raise NonCanonicalError("headers")
    distinct, codes = _distinct_values(cast(list[Headers], headers))
    if any(version != VERSION for version, _precision, _currency in distinct):
        raise NonCanonicalError("version")
    return distinct, codes


def _distinct_values(headers: list[Headers]) -> tuple[list[HeaderValues], Indices]:
    try:
        firsts, codes = factorize(list(map(_first_headers, headers)))
    except IndexError:
        return factorize(list(map(_values_of, headers)))
    pairs = [tuple(zip(*first, strict=True)) for first in firsts]
    if all(names == _HEADER_NAMES for names, _values in pairs):
        return [cast(HeaderValues, values) for _names, values in pairs], codes
    return factorize(list(map(_values_of, headers)))


def _values_of(headers: Headers) -> HeaderValues:
    # Of several with one name the first counts.
    by_name = dict(reversed(headers))
    return by_name.get("v", VERSION), by_name.get("precision"), by_name.get("currency")
