"""The benchmark's events differ in what real ones differ in."""

import json
from datetime import UTC, datetime

from bench.events import Event, disordered, make_events, unusual

END = datetime(2026, 1, 5, 12, tzinfo=UTC)


def some_events() -> list[Event]:
    return list(make_events(3_000, symbols=30, end=END))


def test_events_come_in_order() -> None:
    ids = [event.event_id for event in some_events()]
    assert ids == sorted(set(ids))


def test_events_are_varied() -> None:
    values = [json.loads(event.message.value) for event in some_events()]
    headers = [dict(event.message.headers) for event in some_events()]
    assert {value["source"] for value in values} == {"finnhub", "yfinance", "alpha_vantage"}
    assert {header["currency"] for header in headers} == {b"", b"USD", b"GBp", b"EUR"}
    assert {header["precision"] for header in headers} == {b"second", b"unknown"}
    assert len({value["raw_response_id"] for value in values}) == len(values)
    # A third has whole seconds.
    assert len({value["timestamp"] for value in values}) > len(values) * 0.6
    decimals = {len(str(value["price"]).partition(".")[2]) for value in values}
    assert {1, 2, 3, 4, 8} <= decimals


def test_disordered_events_are_the_same() -> None:
    ids = [event.event_id for event in some_events()]
    mixed = [event.event_id for event in disordered(iter(some_events()))]
    assert set(mixed) == set(ids)
    assert len(mixed) > len(ids)
    assert mixed != sorted(mixed)


def test_one_event_in_ten_is_unusual_and_says_the_same() -> None:
    plain, changed = some_events(), list(unusual(iter(some_events())))
    as_json = [[json.loads(event.message.value) for event in events] for events in (plain, changed)]
    assert as_json[0] == as_json[1]
    differ = sum(one != other for one, other in zip(plain, changed, strict=True))
    assert 0.08 < differ / len(plain) < 0.12
    assert any(b"e-2" in event.message.value for event in changed)
