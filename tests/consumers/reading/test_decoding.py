"""Batches are read as `decode_event` reads each of their messages, and at once where all are sound."""

import json
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from hypothesis import given
from hypothesis import strategies as st

from consumers.averages.columns import FRACTION, WHOLE, Events, decimal_of, id_of, moment_of
from consumers.reading.decoding import decode_messages, received
from consumers.reading.event_parser import parse_batch
from prices.models import Precision, PricePoint
from prices.publishing.events import EventError, PriceEvent, decode_event, encode_event
from tests.consumers.samples import BEGIN, BROKER_TIME, RAW, event_id, message

SOUND = message().value() or b""
ID_TEXT, RAW_TEXT = str(event_id(0)).encode(), str(RAW).encode()


def events_of(columns: Events) -> list[PriceEvent]:
    return [
        PriceEvent(
            event_id=id_of(point),
            symbol=columns.series[code][0],
            price=decimal_of(point[WHOLE], point[FRACTION]),
            provider=columns.sources[source],
            observed_at=moment_of(observed),
            currency=columns.series[code][1],
        )
        for point, code, source, observed in zip(
            columns.points, columns.codes, columns.source_codes, columns.observed, strict=True
        )
    ]


def by_definition(each: Message) -> PriceEvent | str:
    sent = received(each)
    try:
        return decode_event(sent.key, sent.value, headers=sent.headers or (), broker_time=sent.broker_time)
    except EventError as error:
        return str(error)


def found(each: Message) -> PriceEvent | str:
    decoded = decode_messages([each])
    results: list[PriceEvent | str] = [*events_of(decoded.events)]
    results += [letter.reason for letter in decoded.dead_letters]
    (result,) = results
    return result


def replaced(old: bytes) -> Any:
    """Return strategies of values in which one part is another."""
    assert old in SOUND
    return st.sampled_from(OTHERS[old]).map(lambda new: SOUND.replace(old, new))


OTHERS: dict[bytes, list[bytes]] = {
    b":100,": [
        *(b":0,", b":0.0,", b":-1,", b":1e2,", b":1E-3,", b":01,", b":1.,", b":.5,", b':"100",', b":null,"),
        *(
            b":999999999999.9999999999999999,",
            b":1000000000000,",
            b":0.0000000000000001,",
            b":0.00000000000000010,",
        ),
        *(
            b":150.2500,",
            b":1e400,",
            b":NaN,",
            b":1 ,",
            b": 1,",
            b":[1],",
            b":000.5,",
            b":1e-16,",
            b":1e-17,",
            b":123456789012.1234567890123456,",
        ),
    ],
    b'"SIM-A"': [b'"sim-a"', b'"SIM-A "', b'"SIM\\u0000"', b'""', b"1", b'"' + b"A" * 33 + b'"'],
    b'"simulated"': [b'""', b'"a\\u0000b"', b'"' + b"s" * 65 + b'"', b"null", b'"\xc3\xa9"', b'"\\ud800"'],
    ID_TEXT: [
        *(
            b"ABCDEF01-5c00-7000-8000-000000000001",
            b"0" * 32,
            b"0" * 36,
            b"019b8e1d5c0070008000-000000000001",
        ),
        *(b"{019b8e1d-5c00-7000-8000-000000000001}", b"", b"019b8e1d 5c00 7000 8000 000000000001"),
        *(
            b"019b8e1d-5c00-7000-8000-00000000000g",
            "\u0663".encode() * 36,
            b"01900000-0000-4000-8000-000000000000",
        ),
    ],
    RAW_TEXT: [b"", b"0" * 36, b"01890000-0000-7000-8000-00000000000x", b"0" * 32],
    b"2026-01-05T12:00:00Z": [
        *(b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59.999999-01:00", b"0001-01-01T00:00:00Z"),
        *(b"2026-01-05T12:00:00", b"2026-01-05T12:00:00.123456789Z", b"2026-01-05", b"1767614400"),
        *(b"9999-12-31T23:59:59.999999Z", b"2026-01-05T12:00:00+05:30"),
    ],
}
FIELDS: dict[str, Any] = json.loads(SOUND)


def in_other_layout(value: bytes, random: Random) -> bytes:
    """Return the same fields in another order, with blanks, escapes and further names."""
    fields = [*json.loads(value, parse_float=Decimal, parse_int=Decimal).items()]
    texts = [(name, f"{each:f}" if isinstance(each, Decimal) else json.dumps(each)) for name, each in fields]
    texts += [("note", '{"a": [1, "\\"", null]}'), ("pric\\u0065s", "[]")][: random.randrange(3)]
    random.shuffle(texts)
    blank = random.choice(["", " ", "\n\t", "  \r\n"])
    parts = [f'{blank}"{name}"{blank}:{blank}{text}{blank}' for name, text in texts]
    return f"{blank}{{{','.join(parts)}}}{blank}".encode()


def with_repeated_name(value: bytes, random: Random) -> bytes:
    """Return the value with one of its names twice, written in one way or the other."""
    name = random.choice(list(FIELDS))
    written = random.choice([name, f"\\u{ord(name[0]):04x}{name[1:]}"])
    repeated = f'"{written}": {json.dumps(FIELDS[name])}'
    return random.choice(
        [value.replace(b"{", f"{{{repeated},".encode()), value.replace(b"}", f",{repeated}}}".encode())]
    )


randoms = st.randoms(use_true_random=False)
values = st.one_of(
    st.just(SOUND),
    st.builds(in_other_layout, st.just(SOUND), randoms),
    st.builds(with_repeated_name, st.just(SOUND), randoms),
    *map(replaced, OTHERS),
    st.binary(max_size=60),
    st.none(),
)
headers = st.one_of(
    st.none(),
    st.just([("v", b"1"), ("precision", b"second")]),
    st.sampled_from([b"GBp", b"GBP", b"", None]).map(
        lambda currency: [("v", b"1"), ("precision", b"second"), ("currency", currency)]
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["v", "precision", "currency"]),
            st.sampled_from(
                [b"1", b"2", b"second", b"unknown", b"", b"GBp", b"GBP", b"\xff", b"a\0b", b"X" * 33, None]
            ),
        ),
        max_size=4,
    ),
)
times = st.one_of(
    st.just(BROKER_TIME),
    st.tuples(
        st.sampled_from([TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE]),
        st.one_of(
            st.integers(-(2**40), 2**60),
            st.integers(BROKER_TIME[1] - 62_000, BROKER_TIME[1] - 58_000),
        ),
    ),
)


@given(value=values, headers=headers, timestamp=times, key=st.sampled_from([b"SIM-A", b"sim-a", b"", None]))
def test_any_message_is_read_as_the_definition_reads_it(**parts: Any) -> None:
    each = message(**parts)
    assert found(each) == by_definition(each)


@given(st.lists(st.tuples(values, headers), max_size=12))
def test_any_batch_is_read_as_its_messages_are(parts: list[tuple[Any, Any]]) -> None:
    batch = [message(number, value=value, headers=header) for number, (value, header) in enumerate(parts)]
    decoded = decode_messages(batch)
    expected = [by_definition(each) for each in batch]
    assert events_of(decoded.events) == [each for each in expected if not isinstance(each, str)]
    assert [letter.reason for letter in decoded.dead_letters] == [
        each for each in expected if isinstance(each, str)
    ]


@pytest.mark.parametrize(
    ("value", "is_event"),
    [(SOUND.replace(b":100,", b":1e2,"), True), (b"no JSON", False), (SOUND.replace(b"-7", b"-4", 1), False)],
)
def test_only_unusual_messages_are_read_one_by_one(
    value: bytes, is_event: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among others, which are read at once, and in the order of their arrival."""
    decoded_singly = []

    def decode_and_note(*args: Any, **kwargs: Any) -> PriceEvent:
        decoded_singly.append(args[1])
        return decode_event(*args, **kwargs)

    monkeypatch.setattr("consumers.reading.decoding.decode_event", decode_and_note)
    batch = [message(number) for number in (4, 0, 3, 1)]
    batch.insert(2, message(2, value=value))
    decoded = decode_messages(batch)
    assert decoded_singly == [value]
    expected = [by_definition(each) for each in batch]
    assert events_of(decoded.events) == [each for each in expected if isinstance(each, PriceEvent)]
    assert len(decoded.dead_letters) == (not is_event)


def test_long_times_are_read_and_not_kept() -> None:
    """A fraction may have any number of digits; of such times no more is remembered than of others."""
    long = [
        message(value=SOUND.replace(b"12:00:00Z", b"12:00:00.%s%dZ" % (b"0" * 100_000, number)))
        for number in range(20)
    ]
    tracemalloc.start()
    try:
        results = [found(each) for each in long]
        kept_bytes, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert results == [by_definition(each) for each in long]
    assert all(isinstance(result, PriceEvent) for result in results)
    assert kept_bytes < 500_000


@pytest.mark.parametrize("currency", [None, "USD"])
def test_headers_that_differ_otherwise_are_of_one_series(currency: str | None) -> None:
    parts = [(number, precision) for number in range(2) for precision in Precision.values]
    batch = [
        message(
            number * 10 + place,
            headers=[("v", b"1"), ("precision", precision.encode())]
            + ([("currency", currency.encode())] if currency else []),
        )
        for place, (number, precision) in enumerate(parts)
    ]
    assert parse_batch(batch).series == [("SIM-A", currency)]


prices = st.decimals(
    min_value=Decimal("1e-16"), max_value=Decimal("999999999999.9999999999999999"), places=16
).map(Decimal.normalize)
outbox_points = st.builds(
    PricePoint,
    id=st.integers(0, 50_000).map(event_id),
    symbol=st.sampled_from(["AAPL", "MSFT"]) | st.from_regex(r"[A-Z0-9.\-_&=^:/]{1,32}", fullmatch=True),
    provider=st.sampled_from(["simulated", "finnhub", "alpha_vantage", "yfinance"]),
    price=prices,
    observed_at=st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
    precision=st.sampled_from(Precision),
    currency=st.sampled_from([None, "GBp", "GBP", "USD"]),
    received_at=st.just(BEGIN),
    raw=st.just(RAW),
)


@given(st.lists(outbox_points, min_size=1, max_size=20))
def test_what_the_outbox_writes_takes_the_fast_way(points: list[PricePoint]) -> None:
    encoded = [encode_event(point, poll=None) for point in points]
    batch = [message(key=each.key, value=each.value, headers=each.headers) for each in encoded]
    assert events_of(parse_batch(batch)) == [by_definition(each) for each in batch]


@given(st.lists(outbox_points, min_size=1, max_size=20), randoms)
def test_any_layout_takes_the_fast_way(points: list[PricePoint], random: Random) -> None:
    encoded = [encode_event(point, poll=None) for point in points]
    batch = [
        message(
            key=each.key,
            value=in_other_layout(each.value, random),
            headers=random.sample(each.headers, len(each.headers)),
        )
        for each in encoded
    ]
    assert events_of(parse_batch(batch)) == [by_definition(each) for each in batch]


@given(randoms)
def test_a_name_twice_is_a_dead_letter(random: Random) -> None:
    ambiguous = message(1, value=with_repeated_name(SOUND, random))
    decoded = decode_messages([message(0), ambiguous])
    assert [letter.reason for letter in decoded.dead_letters] == ["the value has a name twice"]
    assert len(decoded.events) == 1


@given(st.lists(outbox_points, min_size=1, max_size=6), st.data())
def test_one_changed_byte_is_read_as_the_definition_reads_it(
    points: list[PricePoint], data: st.DataObject
) -> None:
    encoded = [encode_event(point, poll=None) for point in points]
    values = [each.value for each in encoded]
    changed = data.draw(st.integers(0, len(values) - 1))
    place = data.draw(st.integers(0, len(values[changed]) - 1))
    new = data.draw(st.one_of(st.sampled_from(list(b'"\\{}:,.-0 eZ')), st.integers(0, 255)))
    kept = data.draw(st.integers(0, 1))
    values[changed] = values[changed][:place] + bytes([new]) + values[changed][place + kept :]
    batch = [
        message(key=each.key, value=value, headers=each.headers)
        for each, value in zip(encoded, values, strict=True)
    ]
    decoded = decode_messages(batch)
    expected = [by_definition(each) for each in batch]
    assert events_of(decoded.events) == [each for each in expected if not isinstance(each, str)]
    assert [letter.reason for letter in decoded.dead_letters] == [
        each for each in expected if isinstance(each, str)
    ]


def kafka_message(**changes: Any) -> Message:
    parts: dict[str, Any] = {
        "topic": "t",
        "partition": 3,
        "offset": 7,
        "key": b"k",
        "value": b"v",
        "headers": [("v", b"1"), ("empty", None)],
        "timestamp": (TIMESTAMP_CREATE_TIME, 1_767_614_400_123),
    }
    return Message(**parts | changes)


def test_message_keeps_what_kafka_says() -> None:
    message = received(kafka_message())
    assert (message.topic, message.partition, message.offset) == ("t", 3, 7)
    assert (message.key, message.value) == (b"k", b"v")
    assert list(message.headers or ()) == [("v", b"1"), ("empty", None)]
    assert message.broker_time == datetime(2026, 1, 5, 12, 0, 0, 123_000, tzinfo=UTC)


def test_message_without_headers_has_an_empty_list_of_them() -> None:
    assert received(kafka_message(headers=None)).headers == ()


@pytest.mark.parametrize(
    ("kind", "milliseconds", "year"),
    [
        (TIMESTAMP_NOT_AVAILABLE, -1, 1970),
        (TIMESTAMP_CREATE_TIME, -1, 1970),
        (TIMESTAMP_CREATE_TIME, 2**62, 9999),
    ],
)
def test_message_with_no_sound_time_gets_a_fixed_one(kind: int, milliseconds: int, year: int) -> None:
    assert received(kafka_message(timestamp=(kind, milliseconds))).broker_time.year == year
