"""Each answer has its request's id, and so has each line that is logged for it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from marketdata.serving.request_ids import HEADER
from tests.product import Product

MADE = re.compile("[0-9a-f]{32}")


def fail(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a bug")


urlpatterns = [path("fail", fail)]
handler500 = "prices.api.errors.server_error"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/livez", 200),
        ("/averages", 200),
        ("/averages?format=csv", 200),
        ("/averages?limit=x", 400),
        ("/averages?symbol=%00", 400),
        ("/nothing", 404),
        ("/prices/poll", 405),
        ("/admin/", 302),
        ("/admin/login/", 200),
        ("/static/admin/css/base.css", 200),
    ],
)
def test_answer_has_the_id_of_its_request(client: Client, address: str, status: int) -> None:
    answer = client.get(address, headers={"x-request-id": "Root=1-67/a:b+c@d~e_f.g"})
    assert (answer.status_code, answer[HEADER]) == (status, "Root=1-67/a:b+c@d~e_f.g")
    answer.close()


def test_refused_host_has_it(client: Client) -> None:
    answer = client.get("/livez", headers={"host": "prices.example", "x-request-id": "one"})
    assert (answer.status_code, answer[HEADER]) == (400, "one")


def test_bug_has_it(settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    answer = Client(raise_request_exception=False).get("/fail", headers={"x-request-id": "one"})
    assert (answer.status_code, answer[HEADER]) == (500, "one")


def test_redirect_to_https_has_it(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    answer = client.get("/jobs", headers={"x-request-id": "one"})
    assert (answer.status_code, answer[HEADER]) == (301, "one")


@pytest.mark.parametrize(
    "given", [None, "", " ", "a b", "a" * 129, "a,b", 'a"b', "a;b", "a\tb", "a\n", "\u00e9", "\u0663"]
)
def test_id_that_is_none_or_not_fit_is_made(client: Client, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}
    made = [client.get("/livez", headers=headers)[HEADER] for _ in range(2)]
    assert all(MADE.fullmatch(each) for each in made)
    assert made[0] != made[1]


def test_longest_id_is_taken(client: Client) -> None:
    assert client.get("/livez", headers={"x-request-id": "a" * 128})[HEADER] == "a" * 128


# --- In a process that serves ---------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_ids_of_requests_that_are_answered_at_once_do_not_mix(web: Product) -> None:
    def ask(number: int) -> str:
        address = f"http://{web.address}/nothing/{number}"
        return requests.get(address, headers={HEADER: f"request-{number}"}, timeout=30).headers[HEADER]

    numbers = range(100)
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, numbers)) == [f"request-{number}" for number in numbers]
    lines = [json.loads(line) for line in web.log("web").read_text().splitlines()]
    told = {line["event"]: line.get("request_id") for line in lines if "/nothing/" in line["event"]}
    assert told == {f"Not Found: /nothing/{number}": f"request-{number}" for number in numbers}


@pytest.mark.django_db(transaction=True)
def test_body_that_is_refused_has_one_too(web: Product) -> None:
    address, body = f"http://{web.address}/prices/poll", b"x" * (1024 * 1024 + 1)
    answer = requests.post(address, data=body, headers={HEADER: "one"}, timeout=30)
    assert (answer.status_code, answer.headers[HEADER]) == (413, "one")
    answer = requests.post(address, data=body, headers={HEADER: "not fit"}, timeout=30)
    assert MADE.fullmatch(answer.headers[HEADER])
