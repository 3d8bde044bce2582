"""What all fields of requests have."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from drf_spectacular.drainage import set_override
from rest_framework import serializers

_T = TypeVar("_T")


class StrictField(serializers.Field[_T, Any, Any, Any], Generic[_T]):
    """A field that takes one type and converts nothing.

    `allowed` is what an error says of it, `schema` says the same in JSON Schema. `meaning` is what the field
    is for, and `more` a sentence: the schema's description has them before and after what is allowed.
    """

    default_error_messages = {"required": "is required", "null": "must not be null"}

    def __init__(
        self,
        allowed: str,
        *,
        schema: Mapping[str, Any],
        meaning: str = "",
        more: str = "",
        examples: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        told = _described(meaning, allowed, more, default=kwargs.get("default"))
        super().__init__(help_text=told, **kwargs)
        self.allowed = allowed
        set_override(self, "field", {**schema, **({"examples": list(examples)} if examples else {})})


def _described(meaning: str, allowed: str, more: str, *, default: Any) -> str:
    text = f"{meaning}: {allowed}" if meaning else allowed
    has_default = default is not None and not callable(default)
    by_default = f"Default: {str(default).lower()}." if has_default else ""
    return " ".join(filter(None, (f"{text[:1].upper()}{text[1:]}.", more, by_default)))
