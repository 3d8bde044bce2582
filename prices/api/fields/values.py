"""Numbers, ids, switches, words and times."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rest_framework import serializers

from prices.api.fields import json_schema
from prices.api.fields.base import StrictField
from prices.database.uuid7 import EPOCH

_UUID = re.compile(json_schema.UUID_PATTERN)
# With a sign: a number below 0 is told that it is out of range.
_DIGITS = re.compile("-?[0-9]{1,19}")
_TIME = re.compile(json_schema.DATE_PATTERN + json_schema.CLOCK_PATTERN)
_DATE = re.compile(json_schema.DATE_PATTERN)
TIME_ALLOWED = "a time from 1970 on with its offset, as 2026-11-22T14:30:00Z (in a query + is written %2B)"
# OpenAPI has no words for what one parameter says of another: its description has.
SINCE = "The beginning, before `until`"
UNTIL = "The end, not included"


def parse_uuid(data: Any) -> UUID | None:
    """Return the id that a text is, None where it is none."""
    # UUID() also takes braces, urn:uuid:, underscores and digits of other alphabets.
    return UUID(data) if isinstance(data, str) and _UUID.fullmatch(data) else None


class WholeNumberField(StrictField[int]):
    """A JSON integer within bounds; in a query, its decimal digits. Not true, 1.0 or "60"."""

    def __init__(self, minimum: int, maximum: int, *, unit: str = "", **kwargs: Any) -> None:
        allowed = f"a whole number from {minimum} to {maximum} {unit}".strip()
        schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
        super().__init__(allowed, schema=schema, **kwargs)
        self.minimum = minimum
        self.maximum = maximum

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if self.context["is_query"] and _DIGITS.fullmatch(data):
            data = int(data)
        if type(data) is not int:
            raise serializers.ValidationError("is not a whole number")
        if not self.minimum <= data <= self.maximum:
            raise serializers.ValidationError("is out of range")
        return data


class IdField(StrictField[UUID]):
    """An id."""

    def __init__(self, allowed: str, **kwargs: Any) -> None:
        super().__init__(allowed, schema=json_schema.UUID, **kwargs)

    def to_internal_value(self, data: Any) -> UUID:
        """Return the id."""
        found = parse_uuid(data)
        if found is None:
            raise serializers.ValidationError("is not a uuid")
        return found


class SwitchField(StrictField[bool]):
    """A JSON boolean; in a query, the word true or false. Not 1, or "true" in JSON."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("true or false", schema={"type": "boolean"}, **kwargs)

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean."""
        if self.context["is_query"] and data in {"true", "false"}:
            data = data == "true"
        if type(data) is not bool:
            raise serializers.ValidationError("is not a switch")
        return data


class WordField(StrictField[str]):
    """One of some words."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        allowed = f"one of {', '.join(words)}" if len(words) > 1 else words[0]
        super().__init__(allowed, schema={"type": "string", "enum": list(words)}, **kwargs)
        self._words = words

    def to_internal_value(self, data: Any) -> str:
        """Return the word."""
        if data not in self._words:
            raise serializers.ValidationError("is not known")
        return str(data)


class TimeField(StrictField[datetime]):
    """A time with its offset from UTC, as RFC 3339 writes it."""

    schema: Mapping[str, Any] = json_schema.TIME

    def __init__(self, more: str = "", **kwargs: Any) -> None:
        super().__init__(TIME_ALLOWED + more, schema=self.schema, **kwargs)

    def to_internal_value(self, data: Any) -> datetime:
        """Return the time in UTC."""
        if not isinstance(data, str) or _TIME.fullmatch(data) is None:
            raise serializers.ValidationError("is not a time")
        try:
            moment = datetime.fromisoformat(data).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise serializers.ValidationError("is not a time") from error
        if moment < EPOCH:
            raise serializers.ValidationError("is too early")
        return moment


class MomentField(TimeField):
    """A time, or a date: the beginning of that day in UTC."""

    schema = json_schema.MOMENT

    def __init__(self, more: str = "", **kwargs: Any) -> None:
        super().__init__(f"; or a date as 2026-11-22, which begins at 00:00 UTC{more}", **kwargs)

    def to_internal_value(self, data: Any) -> datetime:
        """Return the time in UTC."""
        is_date = isinstance(data, str) and _DATE.fullmatch(data) is not None
        return super().to_internal_value(f"{data}T00:00:00Z" if is_date else data)


class WordListField(StrictField[list[str]]):
    """One or more of some words with commas between; `noun` is what each of them is."""

    def __init__(self, words: Sequence[str], *, noun: str, **kwargs: Any) -> None:
        allowed = f"one or more of {', '.join(words)}, with commas between"
        super().__init__(allowed, schema=json_schema.word_list(words), **kwargs)
        self._words = words
        self._noun = noun

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the words."""
        found = str(data).split(",")
        unknown = next((word for word in found if word not in self._words), None)
        if unknown is not None:
            raise serializers.ValidationError(f"{unknown!r:.60} is not a {self._noun}")
        return found
