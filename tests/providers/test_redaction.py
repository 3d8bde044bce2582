"""A key is found in each of its spellings, and nothing else is touched."""

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.redaction import redact, redact_text

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
    ],
)
def test_secret_is_redacted_in_spelling(spelling: str) -> None:
    assert redact(f"<{spelling}> and {spelling}".encode(), [SECRET]) == b"<[redacted]> and [redacted]"
    assert redact_text(f"<{spelling}>", [SECRET]) == "<[redacted]>"


def test_secret_is_redacted_in_either_case() -> None:
    assert redact(b"abcdefgh ABCDEFGH", ["AbCdEfGh"]) == b"[redacted] [redacted]"


def test_secret_below_eight_characters_stays() -> None:
    assert redact(b"price 1234567", ["1234567", "", "1"]) == b"price 1234567"


def test_secret_that_holds_another_is_redacted_whole() -> None:
    assert redact(b"12345678ABC", ["12345678", "12345678ABC"]) == b"[redacted]"


def test_text_that_is_no_unicode_is_kept() -> None:
    assert redact(b"\xff\x00 12345678", ["12345678"]) == b"\xff\x00 [redacted]"
    assert redact_text("\ud800 12345678", ["12345678"]) == "\ud800 [redacted]"


@settings(deadline=None)
@given(st.binary(), st.text(min_size=8, max_size=20).filter(lambda text: text.isprintable()), st.binary())
def test_secret_anywhere_is_gone(before: bytes, secret: str, after: bytes) -> None:
    data = before + secret.encode() + after
    assert secret.encode() not in redact(data, [secret]) or secret in "[redacted]"


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_secret_in_utf_16_is_taken_out(code: str) -> None:
    data = '{"note": "your key is a-secret-key"}'.encode(code)
    assert "a-secret-key".encode(code) not in redact(data, ["a-secret-key"])


def test_secret_that_json_escapes_is_taken_out() -> None:
    escaped = "".join(f"\\u00{ord(letter):02x}" for letter in "a-secret-key")
    data = f'{{"note": "{escaped}", "price": 150.25}}'.encode()
    assert redact(data, ["a-secret-key"]) == b'{"note": "[redacted]", "price": 150.25}'


def test_escapes_that_hide_no_secret_stay() -> None:
    data = b'{"note": "\\u0041\\u0000"}'
    assert redact(data, ["a-secret-key"]) == data
