"""Who asks the web server for the stream is told where it is, and is sent nowhere."""

import pytest
from django.test import Client
from pytest_django import Settings


@pytest.mark.parametrize("path", ["/prices/stream", "/prices/stream/"])
def test_stream_is_said_to_be_at_the_same_host_and_its_own_port(client: Client, path: str) -> None:
    answer = client.get(f"{path}?symbols=SIM-A", headers={"host": "localhost:8000"})
    assert (answer.status_code, answer["Content-Type"]) == (421, "application/problem+json")
    told = answer.json()
    assert told["type"] == "urn:marketdata:ask-the-stream"
    assert told["stream_url"] == "http://localhost:8001/prices/stream?symbols=SIM-A"
    assert "Location" not in answer


@pytest.mark.parametrize("host", ["[::1]:8000", "[::1]"])
def test_host_may_be_an_ipv6_address(client: Client, host: str) -> None:
    answer = client.get("/prices/stream", headers={"host": host})
    assert answer.json()["stream_url"] == "http://[::1]:8001/prices/stream"


def test_stream_behind_a_proxy_is_where_the_operator_says(client: Client, settings: Settings) -> None:
    settings.STREAM_URL = "https://prices.example.com/stream"
    answer = client.get("/prices/stream?symbols=SIM-A")
    assert answer.json()["stream_url"] == "https://prices.example.com/stream?symbols=SIM-A"


@pytest.mark.django_db
def test_stream_is_not_in_the_openapi(client: Client) -> None:
    assert "/prices/stream" not in client.get("/api/schema").json()["paths"]
