"""Large answers of data are packed for who accepts it, and nobody else's, and nothing that has secrets."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketdata.serving.answers import Answer, Headers, WSGIStream
from marketdata.serving.compression import LEAST_BYTES, accepts_gzip, packed
from prices.models import PricePoint
from tests.examples import examples
from tests.prices.bars.definition import store
from tests.product import Product

ROWS = b'{"symbol":"AAPL","price":150.25},' * 200
JSON: Headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ROWS))]


@pytest.mark.parametrize(
    ("accepted", "takes_gzip"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br, gzip ; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("identity;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip", True),
        ("gzip;q=2", False),
        ("gzip;q=", False),
        ("gzip;level=9", False),
        ("notgzip", False),
        ("br,deflate", False),
    ],
)
def test_encoding_is_that_of_the_quality_values(accepted: str, takes_gzip: bool) -> None:
    assert accepts_gzip(accepted) == takes_gzip


def pack(answer: Answer, *, path: str = "/averages", accepted: str = "gzip") -> Answer:
    return packed(answer, path=path, accepted=accepted)


def test_large_answer_is_packed_and_says_so() -> None:
    answer = pack(Answer(200, [*JSON, (b"x-y", b"1"), (b"x-y", b"2")], ROWS))
    assert gzip.decompress(answer.body) == ROWS
    assert len(answer.body) < len(ROWS) / 10
    assert answer.headers == [
        (b"content-type", b"application/json"),
        (b"x-y", b"1"),
        (b"x-y", b"2"),
        (b"vary", b"Accept-Encoding"),
        (b"content-encoding", b"gzip"),
        (b"content-length", b"%d" % len(answer.body)),
    ]


def test_who_does_not_accept_it_is_told_that_it_varies() -> None:
    answer = pack(Answer(200, JSON, ROWS), accepted="br")
    assert (answer.body, answer.headers) == (ROWS, [*JSON, (b"vary", b"Accept-Encoding")])


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        (b"Accept", b"Accept, Accept-Encoding"),
        (b"Accept, accept-encoding", b"Accept, accept-encoding"),
        (b"*", b"*"),
    ],
)
def test_what_it_varies_by_besides_is_kept(vary: bytes, told: bytes) -> None:
    assert dict(pack(Answer(200, [*JSON, (b"vary", vary)], ROWS)).headers)[b"vary"] == told


@pytest.mark.parametrize(("etag", "told"), [(b'"a"', b'W/"a"'), (b'W/"a"', b'W/"a"')])
def test_etag_of_a_packed_answer_is_weak(etag: bytes, told: bytes) -> None:
    answer = Answer(200, [*JSON, (b"etag", etag)], ROWS)
    assert dict(pack(answer).headers)[b"etag"] == told
    assert dict(pack(answer, accepted="").headers)[b"etag"] == etag


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/problem+json", "text/csv; charset=utf-8", "application/x-ndjson"],
)
def test_data_of_each_kind_is_packed(content_type: str) -> None:
    answer = Answer(200, [(b"content-type", content_type.encode())], ROWS)
    assert gzip.decompress(pack(answer).body) == ROWS


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (Answer(200, JSON, ROWS[: LEAST_BYTES - 1]), "/averages"),
        (Answer(304, [(b"etag", b'"a"')], b""), "/averages"),
        (Answer(200, JSON, ROWS), "/admin/autocomplete/"),
        (Answer(200, [(b"content-type", b"text/html")], ROWS), "/"),
        (Answer(200, [(b"content-type", b"text/event-stream")], b"", WSGIStream([ROWS])), "/stream"),
        (Answer(200, [], ROWS), "/averages"),
        (Answer(200, [*JSON, (b"content-encoding", b"br")], ROWS), "/averages"),
        (Answer(206, [*JSON, (b"content-range", b"bytes 0-9/99")], ROWS), "/averages"),
    ],
    ids=["small", "not modified", "admin", "page", "events", "unknown", "packed", "part"],
)
def test_what_is_not_packed_is_left_as_it_is(answer: Answer, path: str) -> None:
    assert pack(answer, path=path) is answer


# --- Streamed answers -----------------------------------------------------------------------------


def stream(*pieces: bytes) -> Answer:
    return Answer(200, [(b"content-type", b"text/csv")], b"", WSGIStream(pieces))


def sent(answer: Answer) -> Iterator[bytes]:
    assert answer.more is not None
    return iter(answer.more.next_piece, None)


@hypothesis_settings(max_examples=examples(100))
@given(st.lists(st.binary(max_size=40_000), max_size=5))
def test_stream_is_packed_whole(pieces: list[bytes]) -> None:
    answer = pack(stream(*pieces))
    assert dict(answer.headers)[b"content-encoding"] == b"gzip"
    assert gzip.decompress(b"".join(sent(answer))) == b"".join(pieces)


def test_each_piece_can_be_read_as_soon_as_it_is_sent() -> None:
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    pieces = [bytes([number]) * 16 * 1024 for number in range(5)]
    answer = pack(stream(*pieces))
    assert [reader.decompress(piece) for piece in sent(answer)] == [*pieces, b""]
    assert reader.eof


def test_stream_that_is_left_has_no_end() -> None:
    def fail() -> Iterator[bytes]:
        yield ROWS
        raise ValueError("broken")

    answer = pack(replace(stream(), more=WSGIStream(fail())))
    with pytest.raises(ValueError, match="broken"):
        list(sent(answer))


# --- In a process that serves ---------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_answers_are_the_same_packed_and_as_they_are(web: Product) -> None:
    for _ in range(20):
        store()
    for path in (
        "/prices/history",
        "/prices/history?format=csv",
        "/prices/history?format=ndjson",
        "/api/schema",
    ):
        plain, with_gzip = (
            requests.get(f"http://{web.address}{path}", headers={"Accept-Encoding": each}, timeout=30)
            for each in ("identity", "gzip")
        )
        assert plain.content == with_gzip.content
        assert [each.headers.get("Content-Encoding") for each in (plain, with_gzip)] == [None, "gzip"]
        assert all("Accept-Encoding" in each.headers["Vary"] for each in (plain, with_gzip))
    assert PricePoint.objects.count() == 20


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_head_has_the_headers_of_get_and_no_body(web: Product, accepted: str) -> None:
    for _ in range(20):
        store()
    for path in ("/prices/history", "/prices/history?format=csv", "/livez", "/averages", "/nothing", "/"):
        headers = {"Accept-Encoding": accepted}
        head, get = (
            requests.request(method, f"http://{web.address}{path}", headers=headers, timeout=30)
            for method in ("HEAD", "GET")
        )
        assert (head.status_code, head.content) == (get.status_code, b"")
        # Of a download nobody knows how long it becomes; a form has a new token each time.
        left_out = {"x-request-id", "date", "transfer-encoding", "set-cookie"}
        told = [{name: each.headers[name] for name in each.headers.keys() - left_out} for each in (head, get)]
        assert told[0] == told[1], path


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/admin/login/", "/", "/docs"])
def test_pages_and_health_are_never_packed(web: Product, path: str) -> None:
    answer = requests.get(f"http://{web.address}{path}", headers={"Accept-Encoding": "gzip"}, timeout=30)
    assert answer.status_code == 200
    assert "Content-Encoding" not in answer.headers
