"""Which methods each address takes: HEAD wherever GET is, and any other is told what is."""

import re
from typing import Any

import pytest
from django.urls import URLPattern
from rest_framework.test import APIClient

from prices.api.fields import UUID_PATTERN
from prices.api.urls import urlpatterns
from prices.models import PricePoint
from tests.conftest import MakeJob
from tests.stored_prices import store_prices

pytestmark = pytest.mark.django_db
ALLOWED = {
    "latest": "GET, HEAD, OPTIONS",
    "bars": "GET, HEAD, OPTIONS",
    "history": "GET, HEAD, OPTIONS",
    "poll": "POST, OPTIONS",
    "stop": "POST, OPTIONS",
    "price": "GET, HEAD, OPTIONS",
    "raw_answer": "GET, HEAD, OPTIONS",
    "averages": "GET, HEAD, OPTIONS",
    "newest_averages": "GET, HEAD, OPTIONS",
    "symbols": "GET, HEAD, OPTIONS",
    "providers": "GET, HEAD, OPTIONS",
    "jobs": "GET, HEAD, OPTIONS",
    "job": "GET, PATCH, DELETE, HEAD, OPTIONS",
    "pause": "POST, OPTIONS",
    "resume": "POST, OPTIONS",
    "runs": "GET, HEAD, OPTIONS",
    "gaps": "GET, HEAD, OPTIONS",
}
QUERIES = {
    "latest": "?symbol=SIM-ACME",
    "bars": "?symbol=SIM-ACME&interval=1m",
    "newest_averages": "?symbol=SIM-ACME",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE")


@pytest.fixture
def addresses(make_job: MakeJob) -> dict[str, str]:
    """Return an address of each route, of things that exist."""
    store_prices()
    point = PricePoint.objects.earliest("id")
    ids = {"event_id": point.id, "raw_response_id": point.raw, "job_id": make_job(["SIM-ACME"]).id}
    return {str(route.name): _address(route, ids) for route in urlpatterns}


def _address(route: URLPattern, ids: dict[str, Any]) -> str:
    path = str(route.pattern).removeprefix("^").removesuffix("/?$")
    for name, value in ids.items():
        path = path.replace(f"(?P<{name}>{UUID_PATTERN})", str(value))
    assert not re.search(r"[(\\]", path)
    return f"/{path}{QUERIES.get(str(route.name), '')}"


def test_each_address_is_listed(addresses: dict[str, str]) -> None:
    assert addresses.keys() == ALLOWED.keys()


@pytest.mark.parametrize("name", ALLOWED)
def test_other_methods_are_told_which_are_taken(api: APIClient, addresses: dict[str, str], name: str) -> None:
    told = api.options(addresses[name])
    assert (told.status_code, told["Allow"]) == (200, ALLOWED[name])
    for method in METHODS:
        if method not in ALLOWED[name].split(", "):
            answer = api.generic(method, addresses[name])
            assert (answer.status_code, answer["Allow"]) == (405, ALLOWED[name]), method


@pytest.mark.parametrize("name", [name for name, methods in ALLOWED.items() if "HEAD" in methods])
def test_head_is_get_without_its_body(api: APIClient, addresses: dict[str, str], name: str) -> None:
    whole, head = api.get(addresses[name]), api.head(addresses[name])
    assert whole.status_code == head.status_code == 200
    assert head.content == b""
    for header in ("Content-Type", "Cache-Control", "ETag", "Vary", "Allow"):
        assert head.get(header) == whole.get(header), header
