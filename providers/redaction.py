"""Taking keys out of what a provider sent back."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

# A shorter key could be part of a price or a word, and taking it out would change the answer.
MIN_SECRET_LENGTH = 8
REDACTED = "[redacted]"


def redact(data: bytes, secrets: Iterable[str]) -> bytes:
    """Give the data with "[redacted]" in place of each secret: plain, percent-encoded, JSON-escaped.

    Upper and lower case are the same. Secrets below 8 characters stay.
    """
    forms = {form for secret in secrets if len(secret) >= MIN_SECRET_LENGTH for form in _forms(secret)}
    if not forms:
        return data
    # Longest first: a form can be the beginning of another.
    pattern = b"|".join(re.escape(form.encode()) for form in sorted(forms, key=len, reverse=True))
    return re.sub(pattern, REDACTED.encode(), data, flags=re.IGNORECASE)


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
