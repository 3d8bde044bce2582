"""What comes over the wire is read exactly, or refused."""

import math
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from providers.adapters.parsing import (
    AMBIGUOUS,
    LONGEST_WAIT_S,
    Rows,
    check_ranges,
    read_json,
    read_object,
    retry_after_s,
    to_currency,
    to_number,
    to_time,
)
from providers.base import ErrorKind, ProviderError
from tests.providers.answers import RECEIVED_AT, error_of, make_answer, parse_one

# Longer than is waited for.
LATER = math.inf


def error_kind_of_body(body: bytes) -> ErrorKind:
    with pytest.raises(ProviderError) as caught:
        read_json(body)
    # Neither may hold the document.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.kind


def test_json_numbers_are_exact() -> None:
    assert read_json(b"[0.1, 150.25, 1e2, 12345678901234567890.123456789]") == [
        Decimal("0.1"),
        Decimal("150.25"),
        Decimal(100),
        Decimal("12345678901234567890.123456789"),
    ]


def test_json_integer_of_a_million_digits_is_read() -> None:
    assert to_number(read_json(b"9" * 1_000_000)).adjusted() == 999_999


def test_json_number_beyond_any_exponent_costs_only_itself() -> None:
    lost, kept = read_json(b"[1e99999999999999999999999, 2.5]")
    assert lost.is_nan()
    assert kept == Decimal("2.5")


def test_json_nan_and_infinity_are_numbers_that_no_price_accepts() -> None:
    assert [number.is_finite() for number in read_json(b"[NaN, Infinity, -Infinity]")] == [False] * 3


def test_json_with_byte_order_mark_is_read() -> None:
    assert read_json(b"\xef\xbb\xbf{}") == {}


def test_json_repeated_key_is_ambiguous_and_its_neighbours_are_not() -> None:
    assert read_json(b'{"c": 1, "t": 5, "c": 2}') == {"c": AMBIGUOUS, "t": Decimal(5)}
    with pytest.raises(ProviderError):
        to_number(AMBIGUOUS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"c": 1',
        b"\xff\xfe{\x00}\x00",
        b'"\xff"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}{}",
        b"OK",
        b"\x00",
        b"\x1f\x8b\x08\x00",
    ],
)
def test_json_that_is_none_is_malformed(body: bytes) -> None:
    assert error_kind_of_body(body) == ErrorKind.MALFORMED


@pytest.mark.parametrize("body", [b"<html>", b"\n <!DOCTYPE html>", b"\xef\xbb\xbf<?xml ?>"])
def test_json_that_is_a_web_page_is_an_upstream_error(body: bytes) -> None:
    assert error_kind_of_body(body) == ErrorKind.UPSTREAM_ERROR


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true", b'"\\ud800"'])
def test_object_of_another_type_is_malformed(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        read_object(body)
    assert caught.value.kind == ErrorKind.MALFORMED


@pytest.mark.parametrize("value", ["12", None, True, False, [], {}, AMBIGUOUS])
def test_number_of_another_type_is_malformed(value: object) -> None:
    with pytest.raises(ProviderError):
        to_number(value)


def epoch_at(moment: datetime) -> Decimal:
    return Decimal(int(moment.timestamp()))


def test_time_is_utc() -> None:
    assert to_time(Decimal(1658347204), RECEIVED_AT) == datetime(2022, 7, 20, 20, 0, 4, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, Decimal(0), Decimal("0.0")])
def test_time_missing_or_zero_is_none(value: object) -> None:
    assert to_time(value, RECEIVED_AT) is None


def test_time_a_little_ahead_of_this_clock_is_kept() -> None:
    ahead = RECEIVED_AT + timedelta(seconds=60)
    assert to_time(epoch_at(ahead), RECEIVED_AT) == ahead


@pytest.mark.parametrize(
    "value",
    [
        epoch_at(RECEIVED_AT + timedelta(seconds=61)),
        epoch_at(RECEIVED_AT) * 1000,
        epoch_at(datetime(1989, 12, 31, tzinfo=UTC)),
        *(Decimal(-1), Decimal("-1E+30"), Decimal("1E+1000000"), Decimal("NaN"), Decimal("Infinity")),
        *("1658347204", True, [], {}, AMBIGUOUS),
    ],
)
def test_time_that_is_none_is_malformed(value: object) -> None:
    with pytest.raises(ProviderError) as caught:
        to_time(value, RECEIVED_AT)
    assert caught.value.kind == ErrorKind.MALFORMED


@pytest.mark.parametrize("value", ["USD", "GBp", "ILA", "ZAc", "USDT"])
def test_currency_is_kept_as_it_is_written(value: str) -> None:
    assert to_currency(value) == value


@pytest.mark.parametrize(
    "value", [None, "", "\ud800\ud800\ud800", "US", "U\x00D", "dollars", 5, ["USD"], AMBIGUOUS]
)
def test_currency_that_is_none_is_left_out(value: object) -> None:
    assert to_currency(value) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        (" 60 ", 60.0),
        ("0017", 17.0),
        ("99999999999", LATER),
        ("9" * 400, LATER),
        ("21600", 21_600.0),
        ("21601", LATER),
        ("Fri, 20 Nov 2026 15:31:00 GMT", 60.0),
        ("Friday, 20-Nov-26 15:31:00 GMT", 60.0),
        ("Fri, 20 Nov 2026 15:29:00 GMT", None),
        ("Fri, 20 Nov 9999 15:29:00 GMT", LATER),
        ("Fri, 20 Nov 99999999999999999999 15:29:00 GMT", LATER),
        ("Fri, 20 Nov 2026 16:31:00 +0100", 60.0),
        # The third form that RFC 9110 has.
        ("Fri Nov 20 15:31:00 2026", 60.0),
        ("Fri, 20 Nov 2026 25:31:00 GMT", None),
        ("0", None),
        ("-5", None),
        ("-99999999999", None),
        ("1.5", None),
        ("soon", None),
        ("nan", None),
        ("\u0661\u0667", None),
        ("", None),
        # Several, as when two servers on the way each say theirs.
        ("17, 60", 60.0),
        ("60, 17, soon", 60.0),
        ("0, -5", None),
        ("5, Fri, 20 Nov 2026 15:31:00 GMT", 60.0),
        ("Fri, 20 Nov 2026 15:31:00 GMT, Fri, 20 Nov 2026 15:32:00 GMT, 5", 120.0),
        (",,, 7,", 7.0),
    ],
)
@pytest.mark.parametrize("provider", ["alpha_vantage", "finnhub", "yfinance"])
def test_retry_after_header(provider: str, header: str, seconds: float | None) -> None:
    error = error_of(parse_one(provider, "AAPL", b"", status=429, headers={"retry-after": header}))
    assert error.kind == ErrorKind.RATE_LIMITED
    is_later = seconds is LATER
    assert error.retry_after == (LONGEST_WAIT_S if is_later else seconds)
    assert ("the provider says for over 6 h, and is asked again after 6 h" in error.message) == is_later


@pytest.mark.timeout(120)
@pytest.mark.parametrize("header", ["9" * 300_000, ",1" * 150_000, "Fri," * 75_000, "9 " * 150_000])
def test_retry_after_made_to_be_slow_is_read_fast(header: str) -> None:
    started = time.process_time()
    retry_after_s(make_answer("finnhub", ("AAPL",), b"", status=429, headers={"retry-after": header}))
    assert time.process_time() - started < 3


def row_error(rows: list[tuple[object, int]], symbol: str, asked: list[str]) -> ErrorKind:
    with pytest.raises(ProviderError) as caught:
        Rows(rows, asked=asked).one(symbol)
    return caught.value.kind


def test_rows_are_found_whatever_their_case() -> None:
    assert Rows([("aapl", 1), ("MSFT", 2)], asked=["AAPL", "msft"]).one("AAPL") == 1


def test_rows_without_the_symbol_do_not_know_it() -> None:
    assert row_error([("AAPL", 1)], "MSFT", ["AAPL", "MSFT"]) == ErrorKind.UNKNOWN_SYMBOL


@pytest.mark.parametrize("stranger", ["META", None, 5, ["FB"]])
def test_rows_of_another_symbol_are_malformed(stranger: object) -> None:
    assert row_error([(stranger, 1)], "FB", ["FB"]) == ErrorKind.MALFORMED


def test_rows_that_repeat_the_symbol_are_malformed() -> None:
    assert row_error([("AAPL", 1), ("aapl", 2)], "AAPL", ["AAPL"]) == ErrorKind.MALFORMED


@pytest.mark.parametrize(
    "bounds",
    [
        (Decimal("19.10"), Decimal("19.42")),
        ("19.10", "19.42"),
        (Decimal(50), Decimal(60)),
        (Decimal(5), Decimal("6.7")),
        (None, None),
        (0, Decimal(0)),
        ("-", "n/a"),
        (Decimal("NaN"), Decimal("Infinity")),
        (AMBIGUOUS, []),
        (Decimal("1E-1000000"), Decimal("1E+1000000")),
        ("1", "9E+999999"),
        # The wrong way round.
        (Decimal(100), Decimal(5)),
    ],
)
def test_range_that_a_price_may_have(bounds: tuple[object, object]) -> None:
    check_ranges(Decimal(20), bounds, confirmed_by=[None])


@pytest.mark.parametrize(
    ("price", "low", "high"),
    [("3105", "19.10", "19.42"), ("1.91", "191", "194.2"), ("60.01", None, "20"), ("20", "60.01", None)],
)
def test_price_beyond_its_range_is_malformed(price: str, low: str | None, high: str | None) -> None:
    with pytest.raises(ProviderError, match="the price contradicts its own range") as caught:
        check_ranges(Decimal(price), (price, price), (low, high), confirmed_by=["0", None, "19.2E9"])
    assert caught.value.kind == ErrorKind.MALFORMED


def test_price_beyond_its_range_may_be_confirmed() -> None:
    check_ranges(
        Decimal("69.31"), (Decimal("487.95"), Decimal("492.4")), confirmed_by=[None, Decimal("69.5")]
    )
