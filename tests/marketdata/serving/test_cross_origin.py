"""Pages of the origins that are set may call the service in a browser, and no others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.conf import settings

from marketdata.bridge import BODY_LIMIT_BYTES
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
ORIGIN, OTHER = "http://localhost:5173", "https://localhost:5173"
SENT = {
    *("authorization", "content-type", "idempotency-key", "if-none-match", "last-event-id", "x-api-key"),
    *("x-request-id",),
}
READ = {
    *("content-disposition", "etag", "link", "location", "ratelimit", "ratelimit-policy", "retry-after"),
    *("x-request-id",),
}
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
def web(request: pytest.FixtureRequest, partitions: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path, CORS_ALLOWED_ORIGINS=request.param)
    product.start("web")
    try:
        wait_until(lambda: product.is_healthy("web"), what="web is ready")
        yield product
    finally:
        product.close()


def ask(
    web: Product,
    path: str,
    *,
    method: str = "GET",
    origin: str | None = ORIGIN,
    asks_for: str = "",
    body: bytes = b"",
) -> requests.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": asks_for or None}
    return requests.request(method, f"http://{web.address}{path}", headers=headers, data=body, timeout=30)


def names(answer: requests.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


@pytest.mark.parametrize("web", [f"https://example.org,{ORIGIN}"], indirect=True)
def test_pages_of_an_allowed_origin_may_call(web: Product) -> None:
    for path, method in (
        ("/prices/poll", "POST"),
        ("/jobs/x", "PATCH"),
        ("/jobs/x", "DELETE"),
        ("/jobs", "GET"),
    ):
        asked = ask(web, path, method="OPTIONS", asks_for=method)
        assert (asked.status_code, asked.headers[ALLOW], asked.content) == (200, ORIGIN, b"")
        assert names(asked, "Access-Control-Allow-Methods") == {"get", "post", "patch", "delete"}
        assert names(asked, "Access-Control-Allow-Headers") == SENT
        assert asked.headers["X-Request-ID"]
    # Its faults, too, or the page could not tell them from a service that is away.
    answers = [
        ask(web, "/jobs"),
        ask(web, "/averages?format=csv"),
        ask(web, "/jobs?limit=x"),
        ask(web, "/nothing"),
        ask(web, "/prices/poll", method="PUT"),
        ask(web, "/prices/poll", method="POST", body=b"x" * (BODY_LIMIT_BYTES + 1)),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 404, 405, 413]
    for answer in answers:
        assert answer.headers[ALLOW] == ORIGIN
        assert names(answer, "Access-Control-Expose-Headers") == READ
        assert "origin" in names(answer, "Vary")
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("web", [ORIGIN], indirect=True)
def test_pages_of_other_origins_and_of_the_admin_may_not(web: Product) -> None:
    for path, origin in (("/jobs", OTHER), ("/jobs", None), ("/admin/login/", ORIGIN), ("/admin", ORIGIN)):
        for method, asks_for in (("GET", ""), ("OPTIONS", "GET")):
            answer = ask(web, path, method=method, origin=origin, asks_for=asks_for)
            assert ALLOW not in answer.headers, (path, origin, method)


@pytest.mark.parametrize("web", ["*"], indirect=True)
def test_pages_of_any_origin_may_call_where_it_is_set(web: Product) -> None:
    assert ask(web, "/jobs", origin=OTHER).headers[ALLOW] == "*"
    assert ask(web, "/jobs", method="OPTIONS", asks_for="POST").headers[ALLOW] == "*"
    assert ALLOW not in ask(web, "/admin/login/").headers


def test_nothing_of_it_is_there_where_it_is_not_set() -> None:
    assert not any("cors" in name for name in (*settings.MIDDLEWARE, *settings.INSTALLED_APPS))
