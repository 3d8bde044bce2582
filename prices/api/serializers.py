"""What requests may hold."""

import functools
from collections.abc import Mapping
from typing import Any, cast

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

from prices.api.fields import (
    IdField,
    ProviderField,
    StrictField,
    SwitchField,
    SymbolField,
    SymbolListField,
    SymbolsField,
    WholeNumberField,
    WordField,
    WordListField,
    json_schema,
)
from prices.api.problems import InvalidRequestError
from prices.models import JobStatus
from prices.models.poll_job import MAX_INTERVAL_S, MIN_INTERVAL_S
from prices.symbols import is_simulated
from providers.keys import SIMULATED

MAX_LIMIT = 1000
MAX_AGE_S = 10**9


def _check_simulated(symbols: list[str], provider: str | None, *, field: str) -> None:
    simulated = {is_simulated(symbol) for symbol in symbols}
    if len(simulated) > 1:
        raise serializers.ValidationError({field: ["mixes simulated and real symbols"]})
    if provider is not None and (provider == SIMULATED) != simulated.pop():
        raise serializers.ValidationError({field: [f"cannot be served by {provider}"]})


class Body(serializers.Serializer[Any]):
    """The body of a call: an object without other fields. `rules` in JSON Schema are of several fields."""

    rules: Mapping[str, Any] = {}


class PollRequest(Body):
    """The body of POST /prices/poll."""

    symbols = SymbolsField(meaning="What to poll")
    interval = WholeNumberField(
        MIN_INTERVAL_S,
        MAX_INTERVAL_S,
        unit="(seconds)",
        meaning="From one poll to the next",
        more="Written without a fraction: 60, not 60.0.",
    )
    provider = ProviderField(meaning="Whom to ask first", allow_null=True)
    market_hours = SwitchField(
        meaning="Whether each symbol is polled in the hours of its market alone",
        required=False,
        default=False,
    )

    rules = json_schema.SIMULATED_APART

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse simulated symbols beside real ones, and with real providers."""
        _check_simulated(attrs["symbols"], attrs["provider"], field="symbols")
        return attrs


class PollQuery(serializers.Serializer[Any]):
    """The query of POST /prices/poll."""

    strict = SwitchField(
        meaning="Whether a job that the provider's budget does not carry in full is refused (422)",
        required=False,
        default=False,
    )


class ChangeRequest(Body):
    """The body of PATCH /jobs/{job_id}: at least one of its fields."""

    interval = WholeNumberField(
        MIN_INTERVAL_S,
        MAX_INTERVAL_S,
        unit="(seconds)",
        meaning="From one poll to the next",
        more="Written without a fraction: 60, not 60.0.",
        required=False,
        default=None,
    )
    symbols = SymbolsField(
        meaning="What to poll in place of what is polled now, by the job's provider where it names one",
        required=False,
        default=None,
    )
    market_hours = SwitchField(
        meaning="Whether each symbol is polled in its market's hours alone", required=False, default=None
    )

    rules = {"minProperties": 1}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse simulated symbols beside real ones, and a change of nothing."""
        if all(value is None for value in attrs.values()):
            raise serializers.ValidationError({name: ["is required without the others"] for name in attrs})
        if attrs["symbols"] is not None:
            _check_simulated(attrs["symbols"], None, field="symbols")
        return attrs


class StopRequest(Body):
    """The body of POST /prices/stop."""

    job_id = IdField("the uuid that POST /prices/poll answered")


class LatestRequest(serializers.Serializer[Any]):
    """The query of GET /prices/latest."""

    symbol = SymbolField()
    provider = ProviderField(meaning="Whom to ask, and nobody else")
    expand = WordField(
        "quality", meaning="Tell how old and how good the price is, too", required=False, default=None
    )
    max_age = WholeNumberField(
        0,
        MAX_AGE_S,
        unit="(seconds)",
        meaning="The greatest age by the provider's time",
        required=False,
        default=None,
    )
    fetch = WordField(
        "never", meaning="Ask no provider, and give what is stored", required=False, default=None
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a simulated symbol with a real provider, and the other way round."""
        _check_simulated([attrs["symbol"]], attrs["provider"], field="symbol")
        return attrs


class LatestBatchRequest(LatestRequest):
    """The query of GET /prices/latest of several symbols."""

    symbol = SymbolField(
        meaning="One symbol",
        more="Either this or `symbols` is given.",
        examples=["SIM-ACME"],
        required=False,
        default=None,
    )
    # The query that has none is that of LatestRequest; the schema describes both in this one.
    symbols = SymbolListField(
        more="All are simulated, or none is.", may_mix=False, required=False, default=None
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse simulated symbols beside real ones and with real providers, and a symbol besides."""
        if attrs["symbol"]:
            raise serializers.ValidationError({"symbols": ["is given together with symbol"]})
        _check_simulated(attrs["symbols"], attrs["provider"], field="symbols")
        return attrs


class NoQuery(serializers.Serializer[Any]):
    """The query of a call that takes no parameters."""


class NoBody(serializers.Serializer[Any]):
    """The body of a call that takes no fields: none, or an empty object."""


class PageRequest(serializers.Serializer[Any]):
    """The query of a list: newest first, `limit` a page, going on before an id."""

    limit = WholeNumberField(1, MAX_LIMIT, meaning="Rows of the page", required=False, default=100)
    before = IdField("a uuid: only older rows than this one", required=False, default=None)


class JobsRequest(PageRequest):
    """The query of GET /jobs."""

    status = WordListField(
        JobStatus.values, noun="status", meaning="Only jobs of these", required=False, default=tuple
    )
    provider = ProviderField(
        ", which the job names or, where it names none, which served it last", meaning="Only jobs of this one"
    )
    symbol = SymbolField(meaning="Only jobs that poll it", required=False, default=None)


def validated_query(form: type[serializers.Serializer[Any]], request: Request) -> Mapping[str, Any]:
    """Return the values of the request's query. Raises InvalidRequestError, which names each field at fault.

    For forms that read nothing but the query: for one that was read a moment ago the values are kept.
    """
    return _validated_query(form, request.META["QUERY_STRING"])


@functools.lru_cache(maxsize=1_024)
def _validated_query(form: type[serializers.Serializer[Any]], query: str) -> Mapping[str, Any]:
    return validated(form, QueryDict(query.encode("latin-1")))


def validated(form: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """Return the values of the request. Raises InvalidRequestError, which names each field at fault."""
    is_query = isinstance(data, QueryDict)
    serializer = _serializer(form, is_query)
    errors = _unknown_fields(serializer, data, kind="parameter" if is_query else "field")
    if is_query:
        errors += _repeated_fields(data)
    try:
        # A plain dict: DRF reads an empty value of a QueryDict as null.
        values: dict[str, Any] = serializer.run_validation(dict(data.items()))
    except serializers.ValidationError as error:
        errors += _field_errors(serializer, error.detail)
    if errors:
        raise InvalidRequestError(errors)
    return values


@functools.cache
def _serializer(form: type[serializers.Serializer[Any]], is_query: bool) -> serializers.Serializer[Any]:
    # One for all requests: it keeps nothing of them, and to copy its fields takes longer than to use them.
    return form(context={"is_query": is_query})


def _field_errors(serializer: serializers.Serializer[Any], faults: Any) -> list[dict[str, str]]:
    return [
        {
            "field": name,
            "problem": " ".join(str(problem) for problem in problems),
            "allowed": _allowed(serializer, name),
        }
        for name, problems in faults.items()
    ]


def _allowed(serializer: serializers.Serializer[Any], name: str) -> str:
    field = cast("StrictField[Any]", serializer.fields[name])
    return field.allowed


def _unknown_fields(
    serializer: serializers.Serializer[Any], data: Mapping[str, Any], *, kind: str
) -> list[dict[str, str]]:
    # Obeyed in part, a misspelt one would surprise.
    allowed = ", ".join(serializer.fields) or "none"
    return [
        {"field": str(name)[:60], "problem": f"is not a {kind} of this call", "allowed": allowed}
        for name in data
        if name not in serializer.fields
    ]


def _repeated_fields(data: QueryDict) -> list[dict[str, str]]:
    return [
        {"field": str(name)[:60], "problem": "is given more than once", "allowed": "once"}
        for name, values in data.lists()
        if len(values) > 1
    ]
