"""JSON in: strict, and not without end."""

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

# A job of 100 symbols of 32 characters takes 4 KB.
BODY_LIMIT_BYTES = 256 * 1024


class StrictJSONParser(BaseParser):
    """Read a JSON object. Raises ParseError for anything else, and for a body over 256 KiB."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Give the object."""
        body = stream.read(BODY_LIMIT_BYTES + 1)
        if len(body) > BODY_LIMIT_BYTES:
            raise ParseError(f"the body is larger than {BODY_LIMIT_BYTES} bytes")
        try:
            data = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ParseError(f"the body is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ParseError("the body is not a JSON object")
        return data
