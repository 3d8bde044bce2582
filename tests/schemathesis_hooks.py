"""What schemathesis has to know besides the schema: rules of requests that OpenAPI cannot say.

The descriptions tell of each of them. A request that the schema allows and that is refused for one of these
rules is no failure, and one that breaks a rule and is taken is one.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.hooks import HookContext
from schemathesis.openapi.checks import RejectedPositiveData

Query = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY, LONGEST_WINDOW = timedelta(days=1), timedelta(days=7)
LENGTHS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86400}
SIMULATED_PREFIX, MOST_SYMBOLS = "SIM-", 100
BOTH, EITHER = {"/prices/history", "/averages"}, {"/prices/latest": "symbol", "/averages/latest": "symbols"}


class TakenAgainstARuleError(Failure):
    """A request that breaks a rule of its description was taken."""


def symbol_and_symbols(call: str, query: Query) -> Iterator[str]:
    """Two parameters that exclude each other; of some calls one is needed."""
    given = {"symbol", "symbols"} & set(query)
    if (call in BOTH or call in EITHER) and len(given) == 2:
        yield "symbols"
    elif call in EITHER and not given:
        yield EITHER[call]


def simulated_apart(call: str, query: Query) -> Iterator[str]:
    """A parameter whose values depend on another's."""
    if call == "/prices/latest" and "provider" in query:
        wants = str(query["provider"]).lower() == "simulated"
        for name in {"symbol", "symbols"} & set(query):
            if wants != str(query[name]).upper().startswith(SIMULATED_PREFIX):
                yield name


def cursor_of_the_symbols(call: str, query: Query) -> Iterator[str]:
    """A page goes on with the symbols that it began with."""
    if call in BOTH and "cursor" in query:
        named = symbols_of(query)
        _, _, symbol = str(query["cursor"]).upper().partition(",")
        if symbol not in named if named else symbol:
            yield "cursor"


def times_that_utc_has(call: str, query: Query) -> Iterator[str]:
    """From 1970 to 9999, which the offset decides on their first and last days."""
    for name in {"since", "until"} & set(query):
        if time_of(query[name]) is None:
            yield name


def since_before_until(call: str, query: Query) -> Iterator[str]:
    """The order of two times, one of which may be left out, and how far they may be apart."""
    since, until = (time_of(query[name]) if name in query else None for name in ("since", "until"))
    if call.endswith("/gaps"):
        until = until or datetime.now(UTC)
        since = since or until - DAY
        if until - since > LONGEST_WINDOW:
            yield "since"
    if call == "/prices/bars":
        until = until or datetime.now(UTC)
        span = timedelta(seconds=LENGTHS[query["interval"]]) * int(query.get("limit", 1000))
        since = since or until - min(span, until - EPOCH)
    if since and until and since >= until:
        yield "since"


QUERY_RULES: list[Callable[[str, Query], Iterator[str]]] = [
    symbol_and_symbols,
    simulated_apart,
    cursor_of_the_symbols,
    times_that_utc_has,
    since_before_until,
]


def whole_numbers_without_fraction(body: Any) -> Iterator[str]:
    """JSON Schema takes 60.0 for an integer, and the service does not."""
    if isinstance(body, dict) and isinstance(body.get("interval"), float):
        yield "interval"


def time_of(value: Any) -> datetime | None:
    """Return the time in UTC, None where that has none."""
    text = str(value)
    moment = datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00+00:00")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        return None
    return moment if moment >= EPOCH else None


def symbols_of(query: Query) -> set[str]:
    """Return the symbols that a query names."""
    return {name for key in ("symbol", "symbols") for name in str(query.get(key, "")).upper().split(",")} - {
        ""
    }


def broken_rules(case: Case[Any]) -> set[str]:
    """Return the fields at fault by these rules, of a request that the schema allows."""
    query = case.query or {}
    found = {field for rule in QUERY_RULES for field in rule(case.path, query)}
    return found | set(whole_numbers_without_fraction(case.body))


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Return whether it is one: not if the request breaks a rule and is refused for that."""
    if isinstance(failure, RejectedPositiveData):
        return not (is_refused_for(response, broken_rules(case)) or depends_on_what_is_stored(case, response))
    if isinstance(failure, AcceptedNegativeData):
        return not has_repeats_only(case)
    return True


@schemathesis.check
def refuses_what_breaks_a_rule(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """Fail where a request that breaks a rule is answered as others are."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code >= 300:
        return
    if broken := broken_rules(case):
        raise TakenAgainstARuleError(
            operation=case.operation.label, title="Rule not kept", message=f"{sorted(broken)} against a rule"
        )


def is_refused_for(response: Response, fields: set[str]) -> bool:
    """Return whether the answer names fields at fault, and only these."""
    if response.status_code != 400:
        return False
    named = {error["field"] for error in response.json().get("errors", [])}
    return bool(named) and named <= fields


def depends_on_what_is_stored(case: Case[Any], response: Response) -> bool:
    """Return whether the answer is about an earlier request: its job's provider, or its Idempotency-Key."""
    kind = response.json().get("type")
    if response.status_code == 422 and kind == "urn:marketdata:idempotency-key-reused":
        return "Idempotency-Key" in (case.headers or {})
    if case.method == "PATCH" and response.status_code == 400:
        return "cannot be served by" in response.json()["detail"]
    return False


def has_repeats_only(case: Case[Any]) -> bool:
    """Return whether there are too many symbols, and not with repeats taken out."""
    named = case.body.get("symbols") if isinstance(case.body, dict) else None
    names = named if isinstance(named, list) else str((case.query or {}).get("symbols", "")).split(",")
    return len(names) > MOST_SYMBOLS >= len({str(name).upper() for name in names})
