"""What several answers have, and the shape of errors."""

from typing import Any

from rest_framework import serializers

from providers.base import ErrorKind
from providers.rate_limits.permits import Refusal


class ExactNumber(serializers.DecimalField):
    """A JSON number with the provider's digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=None, decimal_places=None, coerce_to_string=False, **kwargs)


class Attempt(serializers.Serializer[Any]):
    """A provider that gave no price, and why."""

    provider = serializers.CharField()
    error = serializers.ChoiceField(
        [*map(str, ErrorKind), *map(str, Refusal), "timeout", "too_many_fetches", "too_old"],
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
    variable = serializers.CharField(required=False, help_text="The setting that has no value.")
    age_seconds = serializers.FloatField(required=False, allow_null=True, help_text="Of a price too old.")
    attempts = Attempt(
        many=True, required=False, help_text="Who was asked for a price, and why none gave one."
    )
    retry_after = serializers.IntegerField(required=False, help_text="Of one symbol among others: seconds.")
    shortest_interval = serializers.IntegerField(
        required=False, allow_null=True, help_text="Seconds that fit the budget; null: not even 86400."
    )


Endpoint = tuple[str, str, str, Any]


def without_trailing_slashes(endpoints: list[Endpoint], **kwargs: Any) -> list[Endpoint]:
    """Return the addresses as the contract writes them; a trailing slash works too."""
    return [(path.rstrip("/"), pattern, method, view) for path, pattern, method, view in endpoints]


def with_summaries(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Return the schema with the first sentence of each description as the summary of its call."""
    for operations in result["paths"].values():
        for operation in operations.values():
            first = str(operation.get("description", "")).partition("\n\n")[0].replace("\n", " ")
            operation["summary"] = first.partition(". ")[0].removesuffix(".")
    return result


def problems(*statuses: int) -> dict[tuple[int, str], type[Problem]]:
    """Return the error answers of a call."""
    return {(status, "application/problem+json"): Problem for status in statuses}
