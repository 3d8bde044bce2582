"""What requests may hold. A field's help text is what an error says is allowed."""

import functools
from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

from prices.api.fields import (
    IdField,
    ProviderField,
    SwitchField,
    SymbolField,
    SymbolListField,
    SymbolsField,
    TimeField,
    WholeNumberField,
    WordField,
    WordListField,
)
from prices.api.problems import InvalidRequestError
from prices.clock import database_now
from prices.ledger.reports import DAY, LONGEST_WINDOW
from prices.models import JobStatus, RunState
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


class PollRequest(serializers.Serializer[Any]):
    """The body of POST /prices/poll."""

    symbols = SymbolsField()
    interval = WholeNumberField(MIN_INTERVAL_S, MAX_INTERVAL_S, unit="(seconds)")
    provider = ProviderField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse simulated symbols beside real ones, and with real providers."""
        _check_simulated(attrs["symbols"], attrs["provider"], field="symbols")
        return attrs


class PollQuery(serializers.Serializer[Any]):
    """The query of POST /prices/poll."""

    strict = SwitchField(required=False, default=False)


class ChangeRequest(serializers.Serializer[Any]):
    """The body of PATCH /jobs/{job_id}: an interval, symbols, or both."""

    interval = WholeNumberField(
        MIN_INTERVAL_S, MAX_INTERVAL_S, unit="(seconds)", required=False, default=None
    )
    symbols = SymbolsField(required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse simulated symbols beside real ones, and a change of nothing."""
        if attrs["symbols"] is not None:
            _check_simulated(attrs["symbols"], None, field="symbols")
        elif attrs["interval"] is None:
            raise serializers.ValidationError(
                {"interval": ["is required without symbols"], "symbols": ["is required without interval"]}
            )
        return attrs


class StopRequest(serializers.Serializer[Any]):
    """The body of POST /prices/stop."""

    job_id = IdField("the uuid that POST /prices/poll answered")


class LatestRequest(serializers.Serializer[Any]):
    """The query of GET /prices/latest."""

    symbol = SymbolField()
    provider = ProviderField()
    expand = WordField("quality", required=False, default=None)
    max_age = WholeNumberField(0, MAX_AGE_S, unit="(seconds)", required=False, default=None)
    fetch = WordField("never", required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a simulated symbol with a real provider, and the other way round."""
        _check_simulated([attrs["symbol"]], attrs["provider"], field="symbol")
        return attrs


class LatestBatchRequest(LatestRequest):
    """The query of GET /prices/latest of several symbols."""

    symbol = SymbolField(required=False, default=None)
    symbols = SymbolListField()

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

    limit = WholeNumberField(1, MAX_LIMIT, required=False, default=100)
    before = IdField("a uuid: only older rows than this one", required=False, default=None)


class JobsRequest(PageRequest):
    """The query of GET /jobs."""

    status = WordListField(
        JobStatus.values, noun="status", example="active,paused", required=False, default=()
    )
    provider = ProviderField(", which the job names or, where it names none, which served it last")
    symbol = SymbolField(required=False, default=None)


class RunsRequest(PageRequest):
    """The query of GET /jobs/{job_id}/runs."""

    before = IdField("the poll_id of a run: only older ones", required=False, default=None)
    state = WordListField(RunState.values, noun="state", example="failed,skipped", required=False, default=())
    since = TimeField("; slots due then or later", required=False, default=None)
    until = TimeField("; slots due before then", required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse times in the wrong order."""
        if attrs["since"] and attrs["until"]:
            _check_order(attrs)
        return attrs


class GapsRequest(serializers.Serializer[Any]):
    """The query of GET /jobs/{job_id}/gaps; the time is what pages go by."""

    limit = WholeNumberField(1, MAX_LIMIT, required=False, default=100)
    since = TimeField(
        f"; at most {LONGEST_WINDOW.days} days before `until`; left out: one day before it",
        required=False,
        default=None,
    )
    until = TimeField("; slots due before then; left out: now", required=False, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Fill in what was left out. Refuse times in the wrong order, and more than is read at once."""
        until = attrs["until"] or database_now()
        whole = attrs | {"until": until, "since": attrs["since"] or until - DAY}
        _check_order(whole)
        if whole["until"] - whole["since"] > LONGEST_WINDOW:
            raise serializers.ValidationError(
                {"since": [f"is more than {LONGEST_WINDOW.days} days before until"]}
            )
        return whole


def _check_order(attrs: dict[str, Any]) -> None:
    if attrs["since"] >= attrs["until"]:
        raise serializers.ValidationError({"since": ["is not before until"]})


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
    return str(serializer.fields[name].help_text)


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
