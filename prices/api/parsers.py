"""JSON in, strictly."""

import codecs
import json
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

import msgspec
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from prices.api.problems import InvalidRequestError


class StrictJSONParser(BaseParser):
    """Read a JSON object in UTF-8, with or without a byte order mark.

    Raises ParseError for anything else, InvalidRequestError where a name stands twice in an object: readers
    of JSON differ in which of the values they obey (RFC 8259, section 4).
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the object."""
        body = stream.read().removeprefix(codecs.BOM_UTF8)
        encoding = json.detect_encoding(body)
        if encoding != "utf-8":
            raise ParseError(f"the body is in {encoding.upper()}, and must be in UTF-8")
        try:
            data = msgspec.json.decode(body)
            json.loads(body, object_pairs_hook=_refuse_repeated)
        except (ValueError, RecursionError) as error:
            raise ParseError(f"the body is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ParseError("the body is not a JSON object")
        return data


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    counts = Counter(name for name, _ in pairs)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise InvalidRequestError(
            [
                {"field": name[:60], "problem": "is given more than once", "allowed": "once"}
                for name in repeated
            ]
        )
