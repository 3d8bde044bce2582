"""What several answers have, and the shape of errors."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema_field
from rest_framework import serializers

from providers.base import ErrorKind
from providers.rate_limits.permits import Refusal

_PRICE = {"exclusiveMinimum": 0}


@extend_schema_field({"type": "number"} | _PRICE)
class ExactNumber(serializers.Field[Any, Any, Any, Any]):
    """A price as a JSON number with the provider's digits."""


@extend_schema_field({"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?$"} | _PRICE)
class NumberOrText(serializers.Field[Any, Any, Any, Any]):
    """A price as `numbers` asks for it: a number, or the same digits as a string."""


class Choice(serializers.ChoiceField):
    """One of some words, which generated clients know by a name."""

    def __init__(self, words: Iterable[str], *, name: str, **kwargs: Any) -> None:
        words = [str(word) for word in words]
        super().__init__(words, **kwargs)
        set_override(self, "field", {"type": "string", "enum": words})
        set_override(self, "field_component_name", name)


class Word(serializers.CharField):
    """One word, always the same."""

    def __init__(self, word: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        set_override(self, "field", {"type": "string", "const": word})


class Attempt(serializers.Serializer[Any]):
    """A provider that gave no price, and why."""

    provider = serializers.CharField()
    error = Choice(
        [*ErrorKind, *Refusal, "timeout", "too_many_fetches", "too_old"],
        name="AttemptError",
        help_text="What the provider answered, or why it was not asked or not waited for.",
    )
    message = serializers.CharField(help_text="The same for people.")


class FieldError(serializers.Serializer[Any]):
    """What is wrong with one field."""

    field = serializers.CharField()
    problem = serializers.CharField()
    allowed = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """Why a call was refused (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    # A declared field, which the metaclass takes out of the class: Serializer.errors stays.
    errors = FieldError(many=True, required=False)  # type: ignore[assignment]
    scope = serializers.CharField(required=False, help_text="The scope that the key has not.")
    variable = serializers.CharField(required=False, help_text="The setting that has no value.")
    age_seconds = serializers.FloatField(required=False, allow_null=True, help_text="Of a price too old.")
    attempts = Attempt(
        many=True, required=False, help_text="Who was asked for a price, and why none gave one."
    )
    retry_after = serializers.IntegerField(required=False, help_text="Of one symbol among others: seconds.")
    shortest_interval = serializers.IntegerField(
        required=False, allow_null=True, help_text="Seconds that fit the budget; null: not even 86400."
    )


NOT_MODIFIED = {304: OpenApiResponse(description="What has the ETag of `If-None-Match` is still the answer.")}
TAG_HEADERS = [
    OpenApiParameter(
        "If-None-Match",
        str,
        OpenApiParameter.HEADER,
        description="The ETag of an answer that the client has: 304 where that is still the answer.",
    ),
    OpenApiParameter(
        "ETag",
        str,
        OpenApiParameter.HEADER,
        response=[200, 304],
        description="Another one where anything in the answer has changed. A file of all rows has none.",
    ),
]


def problems(*statuses: int) -> dict[tuple[int, str], type[Problem]]:
    """Return the error answers of a call: these, and the one of a database that is away."""
    return {(status, "application/problem+json"): Problem for status in sorted({*statuses, 503})}
