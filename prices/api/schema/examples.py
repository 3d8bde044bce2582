"""Examples of answers: what tools show in place of `string` and 0."""

from datetime import date
from http import HTTPStatus
from typing import Any

from rest_framework.exceptions import UnsupportedMediaType

from prices.access.rights import MissingScopeError
from prices.api.access.authentication import KeyRequiredError
from prices.api.access.throttle import Allowance, ThrottledError
from prices.api.errors import problem, problem_of
from prices.api.fields import SIMULATED_ALLOWED, SYMBOL_ALLOWED
from prices.api.problems import InvalidRequestError
from prices.history.errors import RawAnswerGoneError, UnknownPriceError, UnknownRawAnswerError
from prices.jobs.idempotency import KeyInUseError
from prices.jobs.services import JobNotFoundError, JobNotStoppedError, JobStoppedError
from prices.latest.errors import LatestTimeoutError, NothingStoredError, RequestRefusedError
from prices.models import JobStatus, PollJob, Scope
from prices.quota import NotConfigured, StrictKeyError
from providers.base import ErrorKind, ProviderError
from providers.rate_limits.limits import Limit
from providers.rate_limits.permits import Refusal, Refused

_EVENT_ID = "01a22d54-df18-7f3a-bd47-42ae5447b4bf"
_RAW_ID = "01a22d54-df19-7412-9510-ff5515fb9a65"
_JOB_ID = "01a22d54-e2d2-726e-8458-f9ee9c8f513a"
_POLL_ID = "01a22d54-dd30-76e1-a3c2-2f0c4f7b5d11"
_TIME = "2026-11-30T16:40:58.581399Z"
_TOO_LARGE = {"field": "body", "problem": "too large", "allowed": "up to 1 MiB"}


def _fault(field: str, problem: str, allowed: str) -> InvalidRequestError:
    return InvalidRequestError([{"field": field, "problem": problem, "allowed": allowed}])


# By status, and by call where that has another reason.
_ERRORS: dict[int | tuple[str, int], Exception] = {
    400: _fault("limit", "is out of range", "a whole number from 1 to 1000"),
    **dict.fromkeys(
        [(call, 400) for call in ("poll_prices", "change_job")],
        _fault("interval", "is out of range", "a whole number from 1 to 86400 (seconds)"),
    ),
    **dict.fromkeys(
        [(call, 400) for call in ("job", "delete_job", "pause_job", "resume_job", "providers", "raw_answer")],
        _fault("verbose", "is not a parameter of this call", "none"),
    ),
    **dict.fromkeys(
        [(call, 400) for call in ("price", "newest_averages")],
        _fault("numbers", "is not known", "one of number, string"),
    ),
    ("stop_polling", 400): _fault("job_id", "is not a uuid", "the uuid that POST /prices/poll answered"),
    ("latest_price", 400): _fault("symbol", "is required", f"{SYMBOL_ALLOWED}; {SIMULATED_ALLOWED}"),
    404: JobNotFoundError(),
    401: KeyRequiredError(),
    403: MissingScopeError(Scope.JOBS, [Scope.READ]),
    ("latest_price", 404): NothingStoredError("AAPL"),
    ("price", 404): UnknownPriceError(),
    ("raw_answer", 404): UnknownRawAnswerError(),
    409: JobStoppedError(),
    ("delete_job", 409): JobNotStoppedError(PollJob(status=JobStatus.ACTIVE)),
    ("poll_prices", 409): KeyInUseError(),
    410: RawAnswerGoneError(date(2026, 11, 24)),
    415: UnsupportedMediaType("text/plain"),
    422: StrictKeyError(NotConfigured("finnhub", "FINNHUB_API_KEY")),
    429: ThrottledError(Allowance("key", Limit(6000, 60), left=0, more_in_s=1.0)),
    ("latest_price", 429): RequestRefusedError(
        Refused(Refusal.BUDGET, "budget: used up (25 requests a day)", 60.0)
    ),
    502: ProviderError(kind=ErrorKind.NOT_ENTITLED, message="the plan has no access to AAPL"),
    504: LatestTimeoutError("finnhub"),
}
_OTHERS = {
    408: ("body-too-slow", "The body did not come within 5 s.", {}),
    413: ("body-too-large", "The body is larger than 1048576 bytes.", {"errors": [_TOO_LARGE]}),
    503: ("database-away", "The database cannot be reached.", {}),
}
# By a property's name, where its type takes it.
_VALUES: dict[str, Any] = {
    **dict.fromkeys(("created_at", "due_at", "finished_at", "from", "last_run_at", "last_success"), _TIME),
    **dict.fromkeys(("last_success_at", "observed_at", "published_at", "received_at", "to"), _TIME),
    **dict.fromkeys(("first_observed_at", "last_observed_at", "started_at", "timestamp"), _TIME),
    **dict.fromkeys(("last_error", "last_error_at", "message", "missing_setting", "next"), None),
    **dict.fromkeys(("retry_after_s", "reason"), None),
    **dict.fromkeys(("shared", "failed", "skipped", "in_gaps", "in_use", "reserved_for_latest"), 0),
    "age_seconds": 8.511195,
    "average": 101.6,
    "blocked_by": [],
    "budget": "none",
    "close": 102.5,
    "configured": True,
    "currency": "USD",
    "delay_s": 0.204,
    "effective_interval": 60,
    "event_id": _EVENT_ID,
    "failures": 0,
    "final": True,
    "granted_per_day": 1440,
    "freshness_rule": "The market is open and the price is at most 60 s old.",
    "high": 102.5,
    "id": _RAW_ID,
    "in_full": True,
    "interval": 60,
    "is_fallback": False,
    "job_id": _JOB_ID,
    "kind": "samples of quotes, not trades: there is no volume",
    "latency_ms": 0.4,
    "low": 100.75,
    "market_hours": False,
    "market_hours_only": False,
    "open": 101.25,
    "not_configured": "set FINNHUB_API_KEY",
    "points": 1,
    "poll_id": _POLL_ID,
    "price": 102.5,
    "provider": "simulated",
    "providers": ["simulated"],
    "raw_gone": False,
    "raw_response_id": _RAW_ID,
    "samples": 5,
    "shortest_interval": 1,
    "slots": 1440,
    "start": "2026-11-30T16:00:00Z",
    "status": 200,
    "stored": 1440,
    "success_rate": 1.0,
    "symbol": "SIM-ACME",
    "symbols": ["SIM-ACME"],
    "wanted_per_day": 1440,
    "url": "simulated://quotes?symbols=SIM-ACME",
    "window_size": 5,
}
_PRICE = {"symbol": "SIM-ACME", "price": 102.5, "timestamp": _TIME, "provider": "simulated"}
# Of calls whose answers have members that they have only when asked for them, or one of several shapes.
ANSWERS: dict[str, dict[str, Any]] = {
    "latest_price": {
        "One symbol": _PRICE,
        "Several symbols": {
            "results": [
                _PRICE,
                {"symbol": "SIM-NOVELTY", "problem": problem_of(NothingStoredError("SIM-NOVELTY"))},
            ]
        },
        "With expand=quality": {
            **_PRICE,
            "observed_at": _TIME,
            "precision": "second",
            "received_at": _TIME,
            "age_seconds": 8.511195,
            "currency": "USD",
            "market_state": "open",
            "freshness": "fresh",
            "freshness_rule": "The market is open and the price is at most 60 s old.",
            "raw_response_id": _RAW_ID,
            "attempts": [],
        },
    }
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "null": type(None),
}


def add_values(shape: dict[str, Any]) -> None:
    """Give an example to each property whose name tells one, and that has none."""
    for name, schema in shape.get("properties", {}).items():
        if name in _VALUES and "examples" not in schema and _is_of_type(_VALUES[name], schema):
            schema["examples"] = [_VALUES[name]]


def _is_of_type(value: Any, schema: dict[str, Any]) -> bool:
    named = schema.get("type", [])
    names = [named] if isinstance(named, str) else named
    return any(isinstance(value, _TYPES[name]) for name in names)


def problem_example(call: str, status: int) -> dict[str, Any] | None:
    """Return an answer of this status, as the call gives it; None where none is known."""
    error = _ERRORS.get((call, status), _ERRORS.get(status))
    if error is not None:
        found = problem_of(error)
        # That is a header here.
        return found and {name: value for name, value in found.items() if name != "retry_after"}
    if status not in _OTHERS:
        return None
    name, detail, more = _OTHERS[status]
    return problem(HTTPStatus(status), name, detail, **more)
