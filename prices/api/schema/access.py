"""How a call shows whom it is from, where keys are needed."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension

from prices.access.rights import needs_keys

_REFUSALS = {
    "401": "No key, or one that opens nothing.",
    "403": "A key without the scope that the call needs.",
    "429": "More requests than are answered; `Retry-After` tells when the next one is.",
}


class KeyScheme(OpenApiAuthenticationExtension):
    """The two headers of a key, either of which will do. Where the service is open, neither."""

    target_class = "prices.api.access.authentication.KeyAuthentication"
    name = ["bearer", "apiKey"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        """Return what a call needs."""
        return [{"bearer": []}, {"apiKey": []}] if needs_keys() else []

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        """Return the two headers."""
        return [
            {"type": "http", "scheme": "bearer", "description": "A key of `manage.py api_key create`."},
            {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
        ]


def with_refusals(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Return the schema with what any call answers whose caller may not make it."""
    if not needs_keys():
        result["components"].pop("securitySchemes", None)
        return result
    for operations in result["paths"].values():
        for operation in operations.values():
            for status, description in _REFUSALS.items():
                operation["responses"].setdefault(status, _refusal(description))
    return result


def _refusal(description: str) -> dict[str, Any]:
    shape = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": description, "content": {"application/problem+json": shape}}
