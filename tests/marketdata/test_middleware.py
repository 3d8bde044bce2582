import json

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/averages?symbol=%00", "symbol"),
        ("/admin/prices/pollrun/?state=%00", "state"),
        ("/admin/prices/pricepoint/?provider=a%00b", "provider"),
    ],
)
def test_query_with_nul_names_the_field(admin_client: Client, path: str, field: str) -> None:
    answer = admin_client.get(path)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert [error["field"] for error in json.loads(answer.content)["errors"]] == [field]


def test_cookie_with_nul_is_refused(client: Client) -> None:
    answer = client.get("/admin/", headers={"cookie": r'sessionid="abcdefgh\000ij"'})
    assert answer.status_code == 400


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/readyz"])
def test_page_by_another_method_is_405(path: str, method: str) -> None:
    answer = Client(enforce_csrf_checks=True).generic(method, path)
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert answer["Content-Type"] == "application/problem+json"


def test_host_that_is_not_served_is_told_the_setting(client: Client) -> None:
    answer = client.get("/jobs", headers={"host": "prices.example"})
    assert answer.status_code == 400
    problem = json.loads(answer.content)
    assert problem["type"] == "urn:marketdata:unknown-host"
    assert "ALLOWED_HOSTS" in problem["detail"]
