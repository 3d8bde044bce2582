"""How the simulator is told what to do, and asked what came: /_faults and /_requests, both JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.simulator.answers import Answer, json_body
from providers.simulator.engine import PROVIDERS, Engine
from providers.simulator.faults import Faults, FaultsError
from providers.simulator.log import summary

FAULTS, REQUESTS = "/_faults", "/_requests"


@dataclass(frozen=True, slots=True)
class _Call:
    engine: Engine
    # The provider that the path names; None stands for all.
    provider: str | None
    query: Mapping[str, str]
    body: bytes


def control(engine: Engine, method: str, path: str, *, query: Mapping[str, str], body: bytes) -> Answer:
    """Do one call and give its answer: 400 for what cannot be read, 404 and 405 as in HTTP.

    GET, PATCH, DELETE /_faults and /_faults/PROVIDER: tell, change, or end the faults.
    GET, DELETE /_requests: the requests that came (`?limit=N`: the newest N), or forget them.
    """
    call, provider = _find(path)
    methods = _CALLS.get(call)
    if methods is None:
        known = ", ".join([*_CALLS, *(f"{FAULTS}/{name}" for name in PROVIDERS)])
        return refused(404, f"nothing is here; there are {known}, and the providers' own addresses")
    if method not in methods:
        return refused(405, f"{method} is not possible here, but {', '.join(methods)}")
    try:
        return methods[method](_Call(engine, provider, query, body))
    except FaultsError as error:
        return refused(400, *error.problems)


def refused(status: int, *problems: str) -> Answer:
    """Return an error of a call that is for the simulator itself."""
    return _json({"errors": problems}, status)


def _json(document: object, status: int = 200) -> Answer:
    return Answer("control", json_body(document) + b"\n", status)


def _find(path: str) -> tuple[str, str | None]:
    call, _, provider = path.rpartition("/")
    if call == FAULTS and provider in PROVIDERS:
        return FAULTS, provider
    return path, None


def _list_faults(call: _Call) -> Answer:
    faults = {name: each.as_dict() for name, each in call.engine.faults().items()}
    return _json(faults[call.provider] if call.provider else faults)


def _change_faults(call: _Call) -> Answer:
    call.engine.change(_read_changes(call.body), provider=call.provider)
    return _list_faults(call)


def _end_faults(call: _Call) -> Answer:
    call.engine.change(Faults().as_dict(), provider=call.provider)
    return _list_faults(call)


def _read_changes(body: bytes) -> dict[str, Any]:
    try:
        changes = json.loads(body)
    except (ValueError, RecursionError):
        changes = None
    if not isinstance(changes, dict):
        raise FaultsError(['the body must be a JSON object such as {"latency_s": 2}'])
    return changes


def _list_requests(call: _Call) -> Answer:
    limit = call.query.get("limit")
    if limit is not None and not (limit.isdecimal() and limit.isascii() and len(limit) < 10):
        return refused(400, "limit must be a whole number")
    requests, counts = call.engine.requests()
    newest = requests if limit is None else requests[max(len(requests) - int(limit), 0) :]
    document = {"counts": summary(requests, counts), "requests": [each.as_dict() for each in newest]}
    return _json(document)


def _forget_requests(call: _Call) -> Answer:
    call.engine.forget_requests()
    return _json({"counts": {}, "requests": []})


_CALLS: dict[str, dict[str, Callable[[_Call], Answer]]] = {
    FAULTS: {"GET": _list_faults, "PATCH": _change_faults, "DELETE": _end_faults},
    REQUESTS: {"GET": _list_requests, "DELETE": _forget_requests},
}
