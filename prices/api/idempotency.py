"""The header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header)."""

import re

from rest_framework.request import Request

from prices.api.access.authentication import access_of
from prices.api.problems import InvalidRequestError

HEADER = "Idempotency-Key"
ALLOWED = "1 to 255 printable ASCII characters"
_KEY = re.compile("[ -~]{1,255}")


def key_of(request: Request) -> str | None:
    """Return the request's key, None where it has none. Raises InvalidRequestError."""
    key: str | None = request.headers.get(HEADER)
    if key is not None and _KEY.fullmatch(key) is None:
        raise InvalidRequestError([{"field": HEADER, "problem": "is not a key", "allowed": ALLOWED}])
    # Two clients may use the same.
    client_id = access_of(request).client_id
    return key if key is None or client_id is None else f"{client_id} {key}"
