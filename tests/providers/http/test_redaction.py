"""A key is found in each of its spellings, and nothing else is touched."""

import base64
import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import Quote
from providers.http.redaction import MIN_SECRET_LENGTH, redact, redact_text
from tests.examples import examples
from tests.providers.answers import parse_one

# What str.isprintable calls so.
PRINTABLE = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
SECRET = 'kéy/with+"signs" &=%'


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower(),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", r"\/"),
        json.dumps(json.dumps(SECRET)[1:-1])[1:-1],
        quote(quote(SECRET, safe=""), safe=""),
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
        "".join(f"\\u{ord(letter):04X}" for letter in SECRET),
        "".join(f"&#{ord(letter)};" for letter in SECRET),
        "".join(f"&#x{ord(letter):X};" for letter in SECRET),
        html.escape(SECRET),
        html.escape(html.escape(SECRET)),
        html.escape(quote(SECRET)),
    ],
)
def test_secret_is_redacted_in_spelling(spelling: str) -> None:
    assert redact(f"<{spelling}> and {spelling}".encode(), [SECRET]) == b"<[redacted]> and [redacted]"
    assert redact_text(f"<{spelling}>", [SECRET]) == "<[redacted]>"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("secret", ["a-secret/key?>~~", "12345678", "kéy~~~?>>>/"])
@pytest.mark.parametrize("before", ["", ":", "us", "user:", "Basic"])
@pytest.mark.parametrize("after", ["", ":", "x", "and more"])
def test_secret_is_redacted_in_base64(
    encode: Callable[[bytes], bytes], secret: str, before: str, after: str
) -> None:
    encoded = encode(f"{before}{secret}{after}".encode())
    left = redact(b'{"auth": "' + encoded + b'", "price": 150.25}', [secret])
    beginning, redacted, end = left.partition(b"[redacted]")
    assert redacted
    # Beside what is left stand bits of the secret's first and last letter at most, and the padding.
    assert len(beginning.removeprefix(b'{"auth": "')) <= len(encode(before.encode()))
    assert len(end.removesuffix(b'", "price": 150.25}')) <= len(encode(after.encode())) + 3


@pytest.mark.parametrize("spell", [bytes.hex, lambda data: data.hex().upper()])
def test_secret_is_redacted_in_hexadecimal(spell: Callable[[bytes], str]) -> None:
    assert redact(f"<{spell(SECRET.encode())}>".encode(), [SECRET]) == b"<[redacted]>"


def test_secret_is_redacted_in_either_case() -> None:
    assert redact(b"abcdefgh ABCDEFGH", ["AbCdEfGh"]) == b"[redacted] [redacted]"


def test_secret_below_eight_characters_stays() -> None:
    assert redact(b"price 1234567", ["1234567", "", "1"]) == b"price 1234567"


def test_secret_that_holds_another_is_redacted_whole() -> None:
    assert redact(b"12345678ABC", ["12345678", "12345678ABC"]) == b"[redacted]"


def test_text_that_is_no_unicode_is_kept() -> None:
    assert redact(b"\xff\x00 12345678", ["12345678"]) == b"\xff\x00 [redacted]"
    assert redact_text("\ud800 12345678", ["12345678"]) == "\ud800 [redacted]"


@settings(max_examples=examples(100))
@given(st.binary(), st.text(PRINTABLE, min_size=8, max_size=20), st.binary())
def test_secret_anywhere_is_gone(before: bytes, secret: str, after: bytes) -> None:
    data = before + secret.encode() + after
    assert secret.encode() not in redact(data, [secret]) or secret in "[redacted]"


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("spell", [str, json.dumps, quote])
def test_text_in_utf_16_with_a_secret_is_dropped(code: str, spell: Callable[[str], str]) -> None:
    assert redact(f"your key is {spell(SECRET)}".encode(code), [SECRET]) == b"[redacted]"
    assert redact("your price is 150.25".encode(code), [SECRET]) == "your price is 150.25".encode(code)


@pytest.mark.parametrize("spell", [str, quote, json.dumps, html.escape])
def test_secret_that_is_cut_at_the_end_is_redacted(spell: Callable[[str], str]) -> None:
    secret = 'a-secret/key=&"1234'
    spelled = spell(secret).removeprefix('"').removesuffix('"')
    for length in range(len(spell(secret[:MIN_SECRET_LENGTH])) + 1, len(spelled)):
        assert redact(f'{{"key": "{spelled[:length]}'.encode(), [secret]) == b'{"key": "[redacted]'


def test_beginning_of_a_secret_within_a_text_stays() -> None:
    assert redact(b"a-secret-garden a-secre", ["a-secret-key"]) == b"a-secret-garden a-secre"


def test_long_secret_is_redacted() -> None:
    secret = "d=" + "CookieOfYahoo/+%2B&S=" * 100
    assert redact(f"<{secret}>".encode(), [secret]) == b"<[redacted]>"
    assert redact(f"<{secret[:-9]}".encode(), [secret]) == redact(f"<{secret[:20]}".encode(), [secret])


@pytest.mark.timeout(120)
def test_answer_without_a_huge_secret_is_read_fast() -> None:
    secrets = [f"{number}-cookie-{'Aa0/+' * 800}" for number in range(30)]
    assert redact(b'{"c":1.5}', secrets) == b'{"c":1.5}'


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", [b"\\", b"%25", b"&amp;", b"\\/", b"&#0", b"a", b"%", b"+ ", b"\0"])
def test_text_made_to_be_slow_is_read_fast(piece: bytes) -> None:
    data = piece * (1024 * 1024 // len(piece))
    for secret in ("a-secret/key", "\\" * 16 + "z", "%25" * 8 + "z", "&" * 16 + "z", "/\\" * 10 + "z"):
        # Its end may look like the beginning of the secret.
        assert redact(data, [secret]).startswith(data[:-1000])


PRICES = st.decimals("0.000001", "999999999999", allow_nan=False, places=6).map(lambda price: f"{price:f}")
KEYS = st.text('0123456789.eE+-%&#;\\u "', min_size=8, max_size=12)


@settings(max_examples=examples(300))
@given(PRICES, KEYS, st.integers(0, 12))
def test_price_is_never_another_one_after_redaction(price: str, key: str, start: int) -> None:
    now = int(datetime(2026, 11, 20, 15, tzinfo=UTC).timestamp())
    # Also keys that are a part of the answer.
    body = f'{{"c": {price}, "t": {now}, "echo": {json.dumps(key)}}}'
    for secret in (key, f"{price}, "[start:], body[6 : 6 + MIN_SECRET_LENGTH]):
        result = parse_one("finnhub", "AAPL", redact(body.encode(), [secret]))
        assert not isinstance(result, Quote) or result.price == Decimal(price)


@settings(max_examples=examples(100))
@given(PRICES, st.from_regex(re.compile(r"[A-Za-z0-9]{7,20}[A-DF-Za-df-z]"), fullmatch=True))
def test_answer_without_the_key_is_not_touched(price: str, key: str) -> None:
    body = f'{{"c": {price}, "t": 1795186800, "d": -0.5, "h": 1.5e3}}'.encode()
    assert redact(body, [key]) == body


def test_secret_that_json_escapes_is_taken_out() -> None:
    escaped = "".join(f"\\u00{ord(letter):02x}" for letter in "a-secret-key")
    data = f'{{"note": "{escaped}", "price": 150.25}}'.encode()
    assert redact(data, ["a-secret-key"]) == b'{"note": "[redacted]", "price": 150.25}'


def test_escapes_that_hide_no_secret_stay() -> None:
    data = b'{"note": "\\u0041\\u0000"}'
    assert redact(data, ["a-secret-key"]) == data
