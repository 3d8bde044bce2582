"""The OpenAPI schema as a client's author reads it; tests/test_openapi.py shows that it is true."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from pytest_django import Settings
from rest_framework.test import APIClient

from prices.models import PricePoint
from tests.conftest import MakeJob
from tests.stored_prices import store_prices

JSON, PROBLEM = "application/json", "application/problem+json"


def make_schema() -> dict[str, Any]:
    """Return the schema as clients get it, by the settings of now."""
    found: dict[str, Any] = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True)))
    return found


schema = functools.cache(make_schema)


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the description of each call."""
    for path, methods in schema()["paths"].items():
        for method, call in methods.items():
            yield path, method.upper(), call


def answers(call: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the status and the description of each answer."""
    for status, answer in call["responses"].items():
        yield int(status), answer


def shapes() -> dict[str, dict[str, Any]]:
    """Return the named shapes of bodies."""
    found: dict[str, dict[str, Any]] = schema()["components"]["schemas"]
    return found


def body_of(call: dict[str, Any]) -> dict[str, Any]:
    """Return the shape of a request's body; empty where it has none."""
    if "requestBody" not in call:
        return {}
    return shapes()[call["requestBody"]["content"][JSON]["schema"]["$ref"].rpartition("/")[2]]


def check(value: Any, by: dict[str, Any]) -> None:
    """Raise ValidationError where a value is not what a schema says."""
    whole = {**by, "components": schema()["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def test_schema_is_openapi() -> None:
    validate_schema(schema())
    assert schema()["openapi"] == "3.1.0"


def test_parameters_say_their_unit_bounds_and_default() -> None:
    parameters = [parameter for *_, call in calls() for parameter in call.get("parameters", ())]
    assert len(parameters) > 50
    for parameter in parameters:
        told, values = parameter["description"], parameter["schema"]
        assert not told[0].islower()
        assert told.endswith(".")
        assert str(values.get("minimum", "")) in told
        assert str(values.get("maximum", "")) in told
        if "default" in values:
            assert f"Default: {str(values['default']).lower()}." in told
        if parameter["name"] == "max_age":
            assert "(seconds)" in told


def test_bodies_take_no_other_fields() -> None:
    bodies = [(call["requestBody"], body_of(call)) for *_, call in calls() if "requestBody" in call]
    assert len(bodies) == 3
    for body, shape in bodies:
        assert body["required"] is True
        assert shape["additionalProperties"] is False
        assert all(field["description"] for field in shape["properties"].values())


def test_calls_describe_each_answer() -> None:
    for *_, call in calls():
        assert all(answer["description"] for _, answer in answers(call)), call["operationId"]
        # PostgreSQL may be away whatever is asked for.
        assert 503 in dict(answers(call))


def test_examples_of_answers_are_such() -> None:
    for *_, call in calls():
        for status, answer in answers(call):
            for media_type, media in answer.get("content", {}).items():
                examples = [example["value"] for example in media.get("examples", {}).values()]
                examples += [media["example"]] if "example" in media else []
                for example in examples:
                    check(example, media["schema"])
                if media_type == PROBLEM:
                    assert [example["status"] for example in examples] == [status], call["operationId"]


def test_refusals_where_keys_are_needed_are_told(settings: Settings) -> None:
    settings.API_AUTH = "keys"
    for methods in make_schema()["paths"].values():
        for call in methods.values():
            for status in (401, 403, 429):
                answer = call["responses"][str(status)]
                assert answer["description"]
                assert answer["content"][PROBLEM]["example"]["status"] == status
                check(answer["content"][PROBLEM]["example"], shapes()["Problem"])


def test_examples_of_fields_are_such() -> None:
    fields = [field for shape in shapes().values() for field in shape.get("properties", {}).values()]
    examples = [(example, field) for field in fields for example in field.get("examples", ())]
    assert len(examples) > 100
    for example, field in examples:
        check(example, field)


def test_links_lead_to_calls() -> None:
    by_name = {call["operationId"]: call for *_, call in calls()}
    links = [
        link
        for call in by_name.values()
        for _, answer in answers(call)
        for link in answer.get("links", {}).values()
    ]
    assert len(links) > 5
    for link in links:
        called = by_name[link["operationId"]]
        assert set(link.get("parameters", ())) <= {each["name"] for each in called.get("parameters", ())}
        assert set(link.get("requestBody", ())) <= set(body_of(called).get("properties", ()))


@pytest.mark.django_db(transaction=True)
def test_requests_of_the_examples_are_answered_as_the_schema_says(
    api: APIClient, make_job: MakeJob, partitions: None, topic: str
) -> None:
    store_prices()
    point = PricePoint.objects.latest("id")
    for path, method, call in calls():
        ids = {"job_id": make_job().id, "event_id": point.id, "raw_response_id": point.raw}
        query = {each["name"]: each["example"] for each in call.get("parameters", ()) if "example" in each}
        fields = body_of(call).get("properties", {})
        body = json.dumps({name: field["examples"][0] for name, field in fields.items()}) if fields else ""
        answer = api.generic(method, path.format(**ids), body, JSON, query_params=query)
        # The example's job is nobody's, and a job is deleted only once it is stopped.
        refused = {"stop_polling": 404, "delete_job": 409}.get(call["operationId"])
        assert answer.status_code == refused or (refused is None and answer.status_code < 300), answer.content
        told = dict(answers(call))[answer.status_code]
        check(json.loads(answer.content), told["content"][answer["Content-Type"]]["schema"])
