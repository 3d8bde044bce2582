"""The server as its clients see it."""

import psycopg
import pytest
from django.db import connection

from prices.access.keys import create_key, revoke_key
from prices.models import AverageBatch
from prices.models.api_client import Scope
from prices.stream.stalls import describe_stall
from tests.consumers.samples import EventStore, event, events, points_of
from tests.prices.stream.conftest import Listen
from tests.prices.stream.listening import Listener
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_client_gets_a_snapshot_and_then_what_comes(listen: Listen, store: EventStore) -> None:
    points_of(0, {"SIM-A": "100"})
    store.write([event(0), event(0, symbol="SIM-B")])
    client = listen("symbols=SIM-A,SIM-NEW")
    known, unknown = client.wait_for(2, "snapshot")
    assert (known["symbol"], known["price"], known["precision"]) == ("SIM-A", 100, "second")
    assert (unknown["symbol"], unknown["price"], unknown["freshness"]) == ("SIM-NEW", None, "unknown")
    assert known.keys() == unknown.keys()
    client.wait_for_id()
    store.write([event(1, price="101.50"), event(1, symbol="SIM-B"), event(0, symbol="SIM-NEW")])
    came = client.wait_for(2, "price")
    assert {(each["symbol"], each["price"]) for each in came} == {("SIM-A", 101.5), ("SIM-NEW", 100)}
    assert [each.retry for each in client.received if each.retry]
    assert client.response.headers["content-type"].startswith("text/event-stream")
    assert client.response.headers["cache-control"] == "no-store"


def test_late_event_is_a_price_and_corrects_what_follows(listen: Listen, store: EventStore) -> None:
    stream = events([str(price) for price in range(1, 9)])
    late = stream.pop(3)
    store.write(stream)
    client = listen("symbols=SIM-A&from=now")
    client.wait_for_id()
    assert client.named("snapshot") == []
    store.write([late])
    assert [each["event_id"] for each in client.wait_for(1, "price")] == [str(late.event_id)]
    corrected = client.wait_for(4, "correction")
    assert [each["event_id"] for each in corrected] == [str(each.event_id) for each in stream[3:]]
    assert corrected[0]["average"] == 3


@pytest.mark.parametrize("way", ["header", "parameter"])
def test_client_that_comes_back_misses_nothing(listen: Listen, store: EventStore, way: str) -> None:
    first = listen("symbols=SIM-A&from=now")
    first.wait_for_id()
    store.write(events(["1", "2", "3"]))
    first.wait_for(3, "price")
    first.close()
    # Cut off after the first one.
    seen = next(each.id for each in first.received if each.event == "price")
    store.write([event(number, price="5") for number in range(3, 6)])
    if way == "header":
        # As a browser: with the address of its first request.
        second = listen("symbols=SIM-A&from=now", last_event_id=seen)
    else:
        second = listen(f"symbols=SIM-A&since={seen}")
    store.write([event(6, price="6")])
    assert [each["price"] for each in second.wait_for(6, "price")] == [2, 3, 5, 5, 5, 6]
    assert second.named("snapshot", "reset") == []


@pytest.mark.parametrize(
    ("last_seen", "reason"),
    [
        ("0123456789ab.1", "the id is of another database"),
        ("of another service", "the id is of another database"),
        ("old", "the id is older than what is kept"),
    ],
)
def test_client_whose_id_cannot_be_used_begins_anew(
    listen: Listen, store: EventStore, last_seen: str, reason: str
) -> None:
    if last_seen == "old":
        client = listen("symbols=SIM-A&from=now")
        last_seen = client.wait_for_id()
        client.close()
    store.write([event(0)])
    AverageBatch.objects.filter(rows=0).delete()
    client = listen("symbols=SIM-A&from=now", last_event_id=last_seen)
    assert client.wait_for(1, "reset") == [{"reason": reason}]
    assert [each["price"] for each in client.wait_for(1, "snapshot")] == [100]
    store.write([event(1, price="7")])
    wait_until(lambda: 7 in prices_of(client), what="the price that came after")
    # The snapshot is read after the cursor is taken, so it may be ahead of the stream.
    assert prices_of(client) in ([7], [100, 7])


def prices_of(client: Listener) -> list[int]:
    return [each["price"] for each in client.named("price")]


def test_all_symbols_are_streamed_to_who_asks_for_them(listen: Listen, store: EventStore) -> None:
    client = listen("symbols=*")
    client.wait_for_id()
    store.write([event(0, symbol=f"SIM-{number}") for number in range(1_500)])
    # More than is kept for one client: the rest is read from the tables.
    came = client.wait_for(1_500, "price")
    assert len({each["event_id"] for each in came}) == len(came) == 1_500


def test_write_elsewhere_that_stays_open_is_told(listen: Listen, store: EventStore, product: Product) -> None:
    client = listen("symbols=SIM-A&from=now")
    client.wait_for_id()
    with psycopg.connect(**connection.get_connection_params(), application_name="report") as other:
        other.execute("CREATE TEMPORARY TABLE held AS SELECT pg_current_xact_id()")
        store.write([event(0)])
        (stalled,) = client.wait_for(1, "stalled")
        assert stalled["since"].endswith("Z")
        assert "a transaction that is still open" in stalled["reason"]
        assert f"session {other.info.backend_pid} " in str(describe_stall())
        assert '"report"' in str(describe_stall())
        late = listen("symbols=SIM-A&from=now")
        late.wait_for(1, "stalled")
        assert client.prices() == []
    assert [each["price"] for each in client.wait_for(1, "price")] == [100]
    client.wait_for(1, "resumed")
    assert describe_stall() is None


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "invalid-symbols"),
        ("symbols=", "invalid-symbols"),
        ("symbols=SIM A", "invalid-symbols"),
        ("symbols=SIM-A&since=1", "invalid-since"),
        ("symbols=SIM-A&from=then", "invalid-from"),
        ("symbols=SIM-A&nonsense=1", "invalid-nonsense"),
    ],
)
def test_request_that_cannot_be_used_is_told_why(listen: Listen, query: str, name: str) -> None:
    answer = listen(query).response
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["type"] == f"urn:marketdata:{name}"


def test_key_is_needed_and_ends_the_stream_when_it_is_revoked(
    listen: Listen, store: EventStore, product: Product
) -> None:
    product.set_environment(API_AUTH="keys")
    key = create_key("reader", [Scope.READ], expires_at=None)
    assert listen("symbols=SIM-A").response.json()["type"] == "urn:marketdata:key-required"
    assert listen("symbols=*", x_api_key=key.text).response.json()["type"] == "urn:marketdata:missing-scope"
    client = listen("symbols=SIM-A", authorization=f"Bearer {key.text}")
    client.wait_for(1, "snapshot")
    revoke_key(key.row.prefix)
    wait_until(lambda: client.is_over, what="the end of the stream")
    assert listen("symbols=SIM-A", authorization=f"Bearer {key.text}").response.status_code == 401


def test_only_the_services_own_pages_may_read_it(listen: Listen, product: Product) -> None:
    own = f"http://{product.address}"
    allowed = listen("symbols=SIM-A", origin=own).response.headers
    assert allowed["access-control-allow-origin"] == own
    assert allowed["access-control-allow-credentials"] == "true"
    for other in ("http://evil.example", f"https://{product.address}", f"http://{product.stream_address}"):
        assert "access-control-allow-origin" not in listen("symbols=SIM-A", origin=other).response.headers


def test_server_ends_at_once_with_its_streams(listen: Listen, product: Product) -> None:
    client = listen("symbols=SIM-A")
    client.wait_for_id()
    assert product.stop("stream") == 0
    wait_until(lambda: client.is_over)
    assert "Traceback" not in product.log("stream").read_text()
