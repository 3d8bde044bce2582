"""What drf-spectacular does not say of the calls by itself."""

from http import HTTPStatus
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema

from prices.api.schema.examples import ANSWERS, add_values, problem_example

Endpoint = tuple[str, str, str, Any]
JSON, PROBLEM = "application/json", "application/problem+json"

MEANINGS = {
    400: "A parameter, a field or the body cannot be used; `errors` names each, and what is allowed.",
    404: "There is no such job, price or raw answer; nobody knows the symbol; no price is new enough.",
    408: "The body did not come within 5 s.",
    409: "The job is stopped, or has to be; or a request with this `Idempotency-Key` is under way.",
    410: "Raw answers of that time are no longer kept.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not `application/json`.",
    422: "With `strict=true`: the budget does not carry the job; or the `Idempotency-Key` was another's.",
    429: "The provider's budget, or what GET /prices/latest may use of it, is used up; or that of the key.",
    502: "The provider failed.",
    503: "No provider may be asked just now; PostgreSQL or Redis is away; too many callers wait.",
    504: "The provider did not answer in time.",
}
PATH_IDS = {
    "job_id": "The job: a uuid that POST /prices/poll answered.",
    "event_id": "The price: a uuid that lists of prices, and events, have.",
    "raw_response_id": "The raw answer: a uuid that prices have.",
}
# What a new job is then known by.
_JOB = {"job_id": "$response.body#/job_id"}
LINKS = {
    "poll_prices": {
        **{
            call: {"operationId": call, "parameters": _JOB}
            for call in ("job", "change_job", "pause_job", "resume_job", "runs", "gaps", "delete_job")
        },
        "stop_polling": {"operationId": "stop_polling", "requestBody": _JOB},
    }
}
MAY_RETRY = {409, 429, 503, 504}
RETRY_AFTER = {
    "schema": {"type": "integer", "minimum": 1},
    "description": "Seconds until asking again makes sense, where that is known.",
}


class ClosedBody(OpenApiSerializerExtension):
    """A request's body takes no other fields, and has rules of several fields."""

    target_class = "prices.api.serializers.Body"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        """Return the schema of the body."""
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return {**schema, "additionalProperties": False, **self.target.rules}


def without_trailing_slashes(endpoints: list[Endpoint], **kwargs: Any) -> list[Endpoint]:
    """Return the addresses as the contract writes them; a trailing slash works too."""
    return [(path.rstrip("/"), pattern, method, view) for path, pattern, method, view in endpoints]


def complete(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Return the schema with summaries, what each answer means, and examples."""
    shapes = result["components"]["schemas"]
    for operations in result["paths"].values():
        for operation in operations.values():
            _complete_call(operation, shapes)
    for shape in shapes.values():
        add_values(shape)
    return result


def _complete_call(operation: dict[str, Any], shapes: dict[str, Any]) -> None:
    operation["summary"] = _summary(operation.get("description", ""))
    _complete_parameters(operation.get("parameters", []))
    if "requestBody" in operation:
        # Of PATCH too: drf-spectacular takes one whose fields may all be left out for one that may be.
        operation["requestBody"]["required"] = True
    call = operation["operationId"]
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if PROBLEM in content:
            _describe_problem(answer, call, int(status))
        elif JSON in content:
            _describe_answer(answer, call, shapes)


def _complete_parameters(parameters: list[dict[str, Any]]) -> None:
    parameters.sort(key=lambda each: (each["in"] != "path", each["name"] not in {"symbol", "symbols"}))
    for parameter in parameters:
        if parameter["name"] in PATH_IDS:
            parameter["description"] = PATH_IDS[parameter["name"]]
        if examples := parameter["schema"].pop("examples", None):
            # Where tools that fill in forms look for it.
            parameter["example"] = examples[0]


def _summary(description: str) -> str:
    first = description.partition("\n\n")[0].replace("\n", " ")
    # What shows summaries shows them as they are.
    return first.partition(". ")[0].removesuffix(".").replace("`", "")


def _describe_problem(answer: dict[str, Any], call: str, status: int) -> None:
    answer["description"] = answer["description"] or MEANINGS.get(status, HTTPStatus(status).description)
    if example := problem_example(call, status):
        answer["content"][PROBLEM]["example"] = example
    if status in MAY_RETRY:
        answer.setdefault("headers", {})["Retry-After"] = RETRY_AFTER


def _describe_answer(answer: dict[str, Any], call: str, shapes: dict[str, Any]) -> None:
    shape = answer["content"][JSON]["schema"].get("$ref", "").rpartition("/")[2]
    answer["description"] = answer["description"] or shapes.get(shape, {}).get("description", "")
    if call in LINKS:
        answer["links"] = LINKS[call]
    if call in ANSWERS:
        answer["content"][JSON]["examples"] = {
            title: {"summary": title, "value": value} for title, value in ANSWERS[call].items()
        }
