"""Whatever a provider sends, parsing gives one entry a symbol, and no quote that must not be."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import ProviderError, Quote, RawAnswer
from providers.registry import PROVIDER_NAMES, get_provider
from tests.examples import examples
from tests.providers.answers import RECEIVED_AT, make_answer
from tests.providers.recordings import load_recordings

QUOTE_URL = "https://query1.finance.yahoo.com/v7/finance/quote?symbols=AAPL"

# One good answer of each kind, with the symbols that it is about.
GOOD: list[tuple[tuple[str, ...], bytes]] = [
    (("AAPL",), b'{"c":153.04,"d":2.04,"pc":151,"t":1658347204}'),
    (("AAPL",), b'{"c":0,"d":null,"pc":0,"t":0}'),
    (
        ("AAPL",),
        b'{"Global Quote": {"01. symbol": "AAPL", "05. price": "1.50",'
        b'"07. latest trading day": "2026-11-19"}}',
    ),
    (
        ("USD/JPY",),
        b'{"Realtime Currency Exchange Rate": {"1. From_Currency Code": "USD", "3. To_Currency Code": "JPY",'
        b'"5. Exchange Rate": "158.7", "6. Last Refreshed": "2026-05-17 17:12:44", "7. Time Zone": "UTC"}}',
    ),
    (
        ("AAPL", "BRK.B"),
        b'{"Meta Data": {"3. Time Zone": "US/Eastern"}, "Stock Quotes": [{"1. symbol": "AAPL",'
        b'"2. price": "1.5", "4. timestamp": "2017-12-29 15:59:58"}]}',
    ),
    (("AAPL",), b"symbol,open,price,latestDay\nAAPL,1.5,1.7,2026-11-19\n"),
    (("AAPL",), b'{"Information": "Please consider spreading out your requests"}'),
    (
        ("AAPL", "BRK.B", "USD/JPY"),
        b'{"quoteResponse":{"result":[{"symbol":"AAPL","regularMarketPrice":244.6,"regularMarketTime":1739566800},'
        b'{"symbol":"BRK-B","currency":"USD","regularMarketPrice":1},'
        b'{"symbol":"USDJPY=X","exchange":"YHD","regularMarketPrice":1.5}],"error":null}}',
    ),
    (
        ("AAPL",),
        b'{"chart":{"result":[{"meta":{"symbol":"AAPL","currency":"USD","regularMarketPrice":1}}],"error":null}}',
    ),
    (("SIM-A",), b'{"quotes":[{"symbol":"SIM-A","price":"1.50","time":1739566800}]}'),
    *((recording.symbols, recording.body) for recording in load_recordings() if len(recording.body) < 2000),
]

# Words that the parsers look for, and values that they must not trip over.
WORDS = sorted(
    {word for _, body in GOOD for word in body.decode("utf-8", "replace").split('"')[1::2]}, key=len
)[:200]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=0, max_value=2 * 10**9),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from([*WORDS, "-1", "NaN", "2026-11-19", "2026-11-19 10:00:00", "0001-01-01 00:00:00"]),
    st.text(max_size=8),
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.sampled_from(WORDS), children, max_size=5)
    ),
    max_leaves=12,
)


def cut(draw: st.DrawFn, body: bytes) -> bytes:
    """Cut a piece out of the body, double it, or put another in its place."""
    start = draw(st.integers(min_value=0, max_value=len(body)))
    end = draw(st.integers(min_value=start, max_value=min(len(body), start + 40)))
    other = draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"", b"NaN", b"1e999", b"null", b'"', b"{}"]))
    )
    return body[:start] + draw(st.sampled_from([other, body[start:end] * 2])) + body[end:]


def alter(draw: st.DrawFn, body: bytes) -> bytes:
    """Put another value in the place of one value somewhere in the JSON document."""
    try:
        document = {"": json.loads(body)}
    except ValueError:
        return body
    holder: Any = document
    key: Any = ""
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 9)):
        holder = holder[key]
        key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = draw(st.one_of(VALUES, DOCUMENTS))
    return json.dumps(document[""]).encode()


@st.composite
def answers(draw: st.DrawFn) -> RawAnswer:
    """Return a good answer, one that was altered or damaged, or one of another world."""
    symbols, body = draw(st.sampled_from(GOOD))
    for change in draw(st.lists(st.sampled_from([alter, alter, cut]), max_size=2)):
        body = change(draw, body)
    other = st.one_of(st.binary(max_size=200), DOCUMENTS.map(lambda document: json.dumps(document).encode()))
    return make_answer(
        "any",
        draw(st.sampled_from([symbols, symbols, symbols, (), ("AAPL", "SIM-A")])),
        draw(st.sampled_from([body] * 5 + [None])) or draw(other),
        status=draw(st.sampled_from([200] * 6 + [301, 401, 403, 404, 429, 500])),
        headers=draw(
            st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset"]), st.text(max_size=30))
        ),
        url=draw(st.one_of(st.just(QUOTE_URL), st.text(alphabet="abc:/?[]#@", max_size=20))),
    )


@pytest.mark.parametrize("provider", PROVIDER_NAMES)
@settings(max_examples=examples(100))
@given(answer=answers())
def test_parse_never_raises_and_answers_for_each_symbol(provider: str, answer: RawAnswer) -> None:
    adapter = get_provider(provider)
    results = adapter.parse(answer)
    assert tuple(results) == answer.symbols
    for symbol, result in results.items():
        assert_sound(symbol, result)
    assert repr(adapter.parse(answer)) == repr(results)


def assert_sound(symbol: str, result: Quote | ProviderError) -> None:
    if isinstance(result, ProviderError):
        assert (result.__traceback__, result.__context__, result.__cause__) == (None, None, None)
        assert result.retry_after is None or 0 < result.retry_after <= 90_000
        return
    assert result.symbol == symbol
    assert 0 < result.price < 10**12
    assert -12 <= int(result.price.as_tuple().exponent) <= 0
    assert (result.observed_at is None) == (result.precision == "unknown")
    if result.observed_at is not None:
        assert result.observed_at.utcoffset() == timedelta(0)
        assert result.observed_at <= RECEIVED_AT + timedelta(seconds=0 if result.precision == "day" else 60)


@settings(max_examples=examples(100))
@given(answer=answers())
def test_yahoo_fallback_never_raises(answer: RawAnswer) -> None:
    requests = get_provider("yfinance").fallback(answer)
    assert all(request.call == "chart" and len(request.symbols) == 1 for request in requests)
