"""GET /prices/{event_id}: a stored price, where it came from, and what became of it."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from prices.clock import database_now
from prices.database.uuid7 import new_ids
from prices.ledger.grid import run_id_of
from prices.models import PollRun, PricePoint, SymbolAverage
from tests.conftest import MakeJob
from tests.prices.api.test_raw_answers import add_raw

pytestmark = pytest.mark.django_db


def add_point(*, raw: UUID | None = None, published: bool = False) -> PricePoint:
    """Store a point; without its raw answer where none is given."""
    point_id, other = new_ids(2)
    now = database_now()
    return PricePoint.objects.create(
        id=point_id,
        symbol="AAPL",
        provider="finnhub",
        price=Decimal("0.0000001200"),
        currency="USD",
        observed_at=now - timedelta(seconds=1),
        precision="second",
        received_at=now,
        raw=raw or other,
        published_at=now if published else None,
    )


def ask(api: APIClient, point: PricePoint, query: str = "") -> dict[str, Any]:
    answer = api.get(f"/prices/{point.id}{query}")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(answer.content)
    return found


def test_price_of_a_job_has_all_its_evidence(api: APIClient, make_job: MakeJob) -> None:
    job, due_at = make_job(), database_now()
    run = PollRun.objects.create(
        id=run_id_of(job.id, due_at),
        job=job,
        due_at=due_at,
        state="stored",
        points=1,
        started_at=due_at,
        finished_at=due_at,
    )
    raw = add_raw(payload='{"c": 1}', poll=run.id)
    point = add_point(raw=raw.id, published=True)
    SymbolAverage.objects.create(
        event_id=point.id,
        symbol="AAPL",
        price=point.price,
        average=Decimal("1.50"),
        window_size=5,
        provider="finnhub",
    )
    found = ask(api, point)
    (row,) = api.get("/prices/history?symbol=AAPL").json()["results"]
    (average,) = api.get("/averages?symbol=AAPL").json()["results"]
    (as_run,) = api.get(f"/jobs/{job.id}/runs").json()["results"]
    answer = api.get(f"/raw/{raw.id}").json()
    of_body = {name: answer.pop(name) for name in ("body", "body_encoding")}
    assert of_body["body"] == {"c": 1}
    assert point.published_at is not None
    assert found == row | {
        "published_at": point.published_at.isoformat().replace("+00:00", "Z"),
        "average": average,
        "raw": answer,
        "raw_gone": False,
        "run": as_run,
        "job_id": str(job.id),
    }


def test_price_of_get_latest_has_no_run(api: APIClient) -> None:
    raw = add_raw(payload="{}")
    found = ask(api, add_point(raw=raw.id))
    assert (found["raw"]["id"], found["raw"]["poll_id"], found["raw_gone"]) == (str(raw.id), None, False)
    assert (found["run"], found["job_id"], found["average"], found["published_at"]) == (None,) * 4


def test_price_whose_run_is_dropped_tells_its_id(api: APIClient) -> None:
    (poll_id,) = new_ids(1)
    found = ask(api, add_point(raw=add_raw(payload="{}", poll=poll_id).id))
    assert (found["raw"]["poll_id"], found["run"], found["job_id"]) == (str(poll_id), None, None)


def test_price_outlives_its_raw_answer(api: APIClient) -> None:
    found = ask(api, add_point())
    assert (found["raw"], found["raw_gone"], found["run"]) == (None, True, None)
    assert found["raw_response_id"]


def test_digits_are_kept_and_may_be_texts(api: APIClient) -> None:
    point = add_point()
    assert b'"price":0.0000001200,' in api.get(f"/prices/{point.id}").content
    assert ask(api, point, "?numbers=string")["price"] == "0.0000001200"


def test_evidence_takes_three_queries(
    api: APIClient, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    (poll_id,) = new_ids(1)
    point = add_point(raw=add_raw(payload="{}", poll=poll_id).id)
    with django_assert_num_queries(3):
        ask(api, point)


def test_unknown_price_is_404(api: APIClient) -> None:
    answer = api.get(f"/prices/{new_ids(1)[0]}/")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "urn:marketdata:unknown-price"
    assert api.get("/prices/nothing").json()["type"] == "urn:marketdata:no-such-address"


@pytest.mark.parametrize(
    ("path", "status"), [("latest", 400), ("history", 200), ("poll", 405), ("stop", 405)]
)
def test_other_calls_keep_their_addresses(api: APIClient, path: str, status: int) -> None:
    assert api.get(f"/prices/{path}").status_code == status


@pytest.mark.parametrize(("query", "field"), [("numbers=float", "numbers"), ("symbol=A", "symbol")])
def test_fault_is_named(api: APIClient, query: str, field: str) -> None:
    answer = api.get(f"/prices/{add_point().id}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
