"""Taking keys out of what a provider sent back."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

# A shorter key could be part of a price or a word, and taking it out would change the answer.
MIN_SECRET_LENGTH = 8
REDACTED = "[redacted]"
_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")


def redact(data: bytes, secrets: Iterable[str]) -> bytes:
    """Give the data with "[redacted]" in place of each secret: plain, percent-encoded, JSON-escaped.

    Upper and lower case are the same. Secrets below 8 characters stay.
    """
    forms = {form for secret in secrets if len(secret) >= MIN_SECRET_LENGTH for form in _forms(secret)}
    if not forms:
        return data
    # Longest first: a form can be the beginning of another.
    encoded = {form.encode(code) for form in forms for code in ("utf-8", "utf-16-le", "utf-16-be")}
    pattern = b"|".join(re.escape(form) for form in sorted(encoded, key=len, reverse=True))
    redacted = re.sub(pattern, REDACTED.encode(), data, flags=re.IGNORECASE)
    # JSON may escape any character. Only where that hides a secret is the text unescaped for good.
    unescaped = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), redacted)
    if re.search(pattern, unescaped, flags=re.IGNORECASE):
        return re.sub(pattern, REDACTED.encode(), unescaped, flags=re.IGNORECASE)
    return redacted


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Give the text redacted like `redact`."""
    return redact(text.encode("utf-8", "surrogatepass"), secrets).decode("utf-8", "surrogatepass")


def _forms(secret: str) -> set[str]:
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        *escaped,
        *(form.replace("/", r"\/") for form in escaped),
    }
