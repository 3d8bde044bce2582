"""GET /raw/{raw_response_id}: what a provider answered, as it is stored."""

import json
from base64 import b64decode
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.db.models import TextField, Value
from django.db.models.functions import Cast
from rest_framework.test import APIClient

from prices.clock import database_now
from prices.database.uuid7 import first_id_at, new_ids
from prices.maintenance.partitions import days_with_partitions, make_partitions
from prices.models import RawMarketData
from tests.prices.two_providers import KEYS, TwoProviders, finnhub_quote

RECEIVED_AT = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


def add_raw(**values: Any) -> RawMarketData:
    """Store a raw answer; `payload` is a text of JSON."""
    if "payload" in values:
        text = Value(values["payload"], TextField())
        values["payload"] = Cast(text, RawMarketData._meta.get_field("payload"))
    (raw_id,) = new_ids(1)
    common: dict[str, Any] = {
        "id": raw_id,
        "provider": "finnhub",
        "symbols": ["AAPL"],
        "url": "https://finnhub.io/api/v1/quote?symbol=AAPL",
        "status": 200,
        "outcome": "quote",
        "received_at": RECEIVED_AT,
        "latency_ms": 12.5,
    }
    return RawMarketData.objects.create(**common | values)


@pytest.mark.django_db
def test_answer_is_told_as_it_is_stored(api: APIClient) -> None:
    (poll_id,) = new_ids(1)
    raw = add_raw(payload='{"c": 1}', poll=poll_id, is_fallback=True)
    for address in (f"/raw/{raw.id}", f"/raw/{raw.id}/", f"/raw/{str(raw.id).upper()}"):
        answer = api.get(address)
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
        assert json.loads(answer.content) == {
            "id": str(raw.id),
            "provider": "finnhub",
            "symbols": ["AAPL"],
            "url": "https://finnhub.io/api/v1/quote?symbol=AAPL",
            "status": 200,
            "outcome": "quote",
            "message": None,
            "received_at": "2026-11-22T14:30:00Z",
            "latency_ms": 12.5,
            "poll_id": str(poll_id),
            "is_fallback": True,
            "body": {"c": 1},
            "body_encoding": "json",
        }


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload",
    [
        '{"c": 150.2500, "d": 0.123456789012345678901234567890}',
        '"a string"',
        "[1.0, null, true]",
        "12345678901234567890.10",
        "null",
    ],
)
def test_json_keeps_every_digit(api: APIClient, payload: str) -> None:
    answer = api.get(f"/raw/{add_raw(payload=payload).id}")
    assert f'"body":{payload},"body_encoding":"json"'.encode() in answer.content


@pytest.mark.django_db
@pytest.mark.parametrize("text", ['<html>\n"M\u00fcnze"\x00</html>', ""])
def test_body_that_is_no_json_is_a_string(api: APIClient, text: str) -> None:
    body = api.get(f"/raw/{add_raw(body=text.encode(), outcome='malformed').id}").json()
    assert (body["body"], body["body_encoding"]) == (text, "utf-8")


@pytest.mark.django_db
def test_body_that_is_no_text_is_base64(api: APIClient) -> None:
    data = b"\x1f\x8b\xff"
    body = api.get(f"/raw/{add_raw(body=data, outcome='malformed').id}").json()
    assert (b64decode(body["body"]), body["body_encoding"]) == (data, "base64")


@pytest.mark.django_db
def test_request_without_an_answer_has_no_body(api: APIClient) -> None:
    raw = add_raw(status=None, outcome="upstream_error", message="no answer within 10 s")
    body = api.get(f"/raw/{raw.id}").json()
    assert (body["status"], body["body"], body["body_encoding"]) == (None, None, None)
    assert body["message"] == "no answer within 10 s"


@pytest.mark.django_db
def test_answer_of_a_time_that_is_not_kept_is_gone(api: APIClient) -> None:
    make_partitions(database_now().date())
    oldest = date.fromisoformat(days_with_partitions("raw_market_data")[0][-8:])
    begin = datetime(oldest.year, oldest.month, oldest.day, tzinfo=UTC)
    dropped = UUID(int=first_id_at(begin).int - (1 << 80) | 7 << 76 | 1 << 63)
    answer = api.get(f"/raw/{dropped}")
    assert (answer.status_code, answer["Content-Type"]) == (410, "application/problem+json")
    assert answer.json() == {
        "type": "urn:marketdata:gone",
        "title": "Gone",
        "status": 410,
        "detail": f"Raw answers of that time are no longer kept: the oldest are of {oldest}.",
    }
    kept = UUID(int=first_id_at(begin).int | 7 << 76 | 1 << 63)
    assert api.get(f"/raw/{kept}").status_code == 404


@pytest.mark.django_db
def test_answer_that_lies_with_older_ones_in_the_default_partition_is_found(api: APIClient) -> None:
    raw = add_raw(id=first_id_at(database_now() - timedelta(days=4000)), payload="{}")
    assert api.get(f"/raw/{raw.id}").status_code == 200


@pytest.mark.django_db
def test_unknown_answer_is_404(api: APIClient) -> None:
    make_partitions(database_now().date())
    # An id that tells no time, and one of a time to come.
    for unknown in (new_ids(1)[0], uuid4(), UUID(int=0), UUID(int=(1 << 128) - 1)):
        answer = api.get(f"/raw/{unknown}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:marketdata:unknown-raw-answer")
    assert api.get("/raw/x").json()["type"] == "urn:marketdata:no-such-address"


@pytest.mark.django_db
def test_without_partitions_nothing_is_gone(api: APIClient) -> None:
    with connection.cursor() as cursor:
        for name in days_with_partitions("raw_market_data"):
            cursor.execute(f"DROP TABLE {name}")
    old = UUID(int=first_id_at(RECEIVED_AT).int | 7 << 76 | 1 << 63)
    assert api.get(f"/raw/{old}").status_code == 404


@pytest.mark.django_db
def test_parameter_is_refused(api: APIClient) -> None:
    assert api.get(f"/raw/{add_raw(payload='{}').id}?expand=body").json()["errors"][0]["field"] == "expand"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("body", ['{"c":"x","said":"%s"}', "<html>%s</html>"])
def test_key_that_a_provider_repeats_is_in_no_answer(
    api: APIClient, providers: TwoProviders, body: str
) -> None:
    key = KEYS["finnhub"]
    quote = finnhub_quote().replace("{", f'{{"token":"{key}",', 1)
    for text, status in ((quote, 200), (body % key, 200), (body % key, 401)):
        providers.answer("finnhub", text, status=status)
        api.get("/prices/latest?symbol=AAPL&provider=finnhub&max_age=0")
    raws = list(RawMarketData.objects.all())
    assert len(raws) >= 2
    for raw in raws:
        answer = api.get(f"/raw/{raw.id}")
        assert answer.status_code == 200
        assert answer.json()["body"]
        assert key.encode() not in answer.content
