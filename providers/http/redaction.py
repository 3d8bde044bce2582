"""Taking keys out of what a provider sent back."""

import base64
import re
from collections.abc import Iterable
from functools import lru_cache

# A shorter key could be part of a price or a word, and taking it out would change the answer.
MIN_SECRET_LENGTH = 8
REDACTED = "[redacted]"
_NESTED = 40
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}


def redact(data: bytes, secrets: Iterable[str]) -> bytes:
    """Return the data with "[redacted]" in place of each secret, and every other byte as it is.

    Each character may be plain or escaped, once or several times, as in urls (%2F), JSON (\\u002f, \\/)
    or HTML (&#47;). Upper and lower case are the same. The whole secret may be in hexadecimal, or in base64,
    also within a longer text. At the end of the data the first 8 characters of a secret are enough: an
    answer may have been cut. Of a text in UTF-16 that repeats a secret nothing is left but "[redacted]".
    Secrets below 8 characters stay.
    """
    # Longest first: a secret can be the beginning of another.
    for secret in sorted({*secrets}, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            # First its beginning: a pattern takes 2 ms a character to compile, and a cookie may have 4,096.
            if _pattern(secret[:MIN_SECRET_LENGTH]).search(data):
                data = _pattern(secret).sub(REDACTED.encode(), data)
            for encoded in _encoded(secret):
                data = data.replace(encoded, REDACTED.encode())
            data = _without_beginning(data, secret)
            if b"\0" in data and _is_in_utf16(data, secret):
                data = REDACTED.encode()
    return data


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Return the text redacted like `redact`."""
    return redact(text.encode("utf-8", "surrogatepass"), secrets).decode("utf-8", "surrogatepass")


@lru_cache(maxsize=64)
def _encoded(secret: str) -> frozenset[bytes]:
    plain = secret.encode("utf-8", "surrogatepass")
    found = {plain.hex().encode(), plain.hex().upper().encode()}
    # What stands before a text shifts its base64; of the characters at its ends neighbours decide.
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(plain)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * before + plain)[first:last])
    return frozenset(found)


def _without_beginning(data: bytes, secret: str) -> bytes:
    # Written as &#x000000; a character takes 20 bytes at most.
    start = max(0, len(data) - 20 * len(secret))
    return data[:start] + _beginning_at_end(secret).sub(REDACTED.encode(), data[start:])


def _is_in_utf16(data: bytes, secret: str) -> bool:
    texts = (data[start:].decode(code, "replace") for start in (0, 1) for code in ("utf-16-le", "utf-16-be"))
    return any(_pattern(secret).search(text.encode()) for text in texts)


@lru_cache(maxsize=64)
def _pattern(secret: str) -> re.Pattern[bytes]:
    return re.compile("".join(_letters(secret)).encode("latin-1"))


@lru_cache(maxsize=64)
def _beginning_at_end(secret: str) -> re.Pattern[bytes]:
    letters = _letters(secret)
    # Groups can be nested only so deep; what follows this many characters of a secret is the secret.
    rest = _END if len(letters) <= _NESTED else r"[\s\S]*"
    for letter in reversed(letters[MIN_SECRET_LENGTH:_NESTED]):
        rest = f"(?:{letter}{rest}|{_END})"
    return re.compile(("".join(letters[:MIN_SECRET_LENGTH]) + rest).encode("latin-1"))


def _letters(secret: str) -> list[str]:
    spellings = [_spellings_of_run(len(run)) if run[0] == "\\" else _spellings(run) for run in _runs(secret)]
    return [f"(?:{'|'.join(found)})" for found in spellings]


# Patterns are made as text and matched as bytes, one character a byte. Each spelling begins with a
# fixed character, and no flag stands for upper and lower case: else the search takes ten times as long.
# Every repetition is bounded, and those of backslashes give nothing back: a body of a megabyte of them
# is read as fast as any.
_SLASHES = r"\\{1,4}+"
_PERCENT = "%(?:25){0,3}"
_AND = "&(?:amp;){0,3}"
# What is left of an escape that was cut may stand before the end.
_END = r"(?:[%&\\]{1,4}[^%&\\]{0,9})?\Z"


def _runs(secret: str) -> list[str]:
    # Backslashes in a row are escaped as one: each for itself, they could be told apart in too many ways.
    return re.findall(r"\\+|.", secret, flags=re.DOTALL)


def _spellings_of_run(length: int) -> list[str]:
    escaped = (f"{_PERCENT}5[cC]", f"{_SLASHES}u005[cC]", f"{_AND}#0{{0,6}}92;", f"{_AND}#[xX]0{{0,6}}5[cC];")
    return [rf"\\{{{length},{4 * length}}}+", *(f"(?:{form}){{{length}}}" for form in escaped)]


def _spellings(letter: str) -> list[str]:
    cases = sorted({letter, letter.lower(), letter.upper()}) if letter.isascii() else [letter]
    spellings = [spelling for case in cases for spelling in _spellings_in_one_case(case)]
    return [*spellings, r"\+"] if letter == " " else spellings


def _spellings_in_one_case(letter: str) -> list[str]:
    utf8 = letter.encode("utf-8", "surrogatepass")
    units = letter.encode("utf-16-be", "surrogatepass")
    plain = "".join(re.escape(chr(byte)) for byte in utf8)
    spellings = [
        # "%2F" escaped again is "%252F".
        "".join(f"{_PERCENT}{_hex(byte)}" for byte in utf8),
        "".join(
            f"{_SLASHES}u{_hex(high)}{_hex(low)}" for high, low in zip(units[::2], units[1::2], strict=True)
        ),
        f"{_AND}#0{{0,6}}{ord(letter)};",
        f"{_AND}#[xX]0{{0,6}}{_hex_digits(f'{ord(letter):x}')};",
        # Last: "%" and "&" also begin the others.
        plain,
    ]
    if letter in _NAMED:
        spellings.insert(0, f"{_AND}{_NAMED[letter]};")
    if letter in '"/':
        spellings.insert(0, f"{_SLASHES}{plain}")
    return spellings


def _hex(byte: int) -> str:
    return _hex_digits(f"{byte:02x}")


def _hex_digits(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
