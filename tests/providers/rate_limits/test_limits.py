from datetime import UTC, datetime

import pytest

from providers.rate_limits.limits import (
    Limit,
    binding_limit,
    in_words,
    parse_limits,
    time_in_words,
    unknown_limit,
    usage_from_headers,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = parse_limits("30/1s,60/1m")


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("30/1s,60/60s", (Limit(30, 1), Limit(60, 60))),
        (" 1/1s , 25/1d ", (Limit(1, 1), Limit(25, 86_400))),
        ("5/200ms", (Limit(5, 0.2),)),
        ("7/2h", (Limit(7, 7200),)),
        ("none", ()),
        ("None", ()),
    ],
)
def test_limits_are_read(text: str, limits: tuple[Limit, ...]) -> None:
    assert parse_limits(text) == limits


@pytest.mark.parametrize("text", ["", "60", "60/min", "0/1s", "60/0s", "-1/1s", "1.5/1s", "60/1m,", "1/32d"])
def test_limits_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no limit: write"):
        parse_limits(text)


def told(limit: str | None, remaining: str | None, reset: str | None = None) -> dict[str, int] | None:
    given = {"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}
    headers = {name: value for name, value in given.items() if value is not None}
    return usage_from_headers(MINUTE, headers, NOW)


@pytest.mark.parametrize("text", ["25/1d", "1/1s", "60/1m", "3/40ms", "500/31d", "7/90s", "2/36h"])
def test_limit_is_written_as_it_is_read(text: str) -> None:
    (limit,) = parse_limits(text)
    assert str(limit) == text


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("1/1s,25/1d", "25/1d"),
        ("30/1s,60/1m", "60/1m"),
        ("10/1m,1000/1h", "10/1m"),
        # The same rate: what the longer one forbids, the shorter one does not.
        ("1/1s,60/1m", "60/1m"),
    ],
)
def test_limit_that_binds_is_the_one_of_the_lowest_rate(text: str, binding: str) -> None:
    assert str(binding_limit(parse_limits(text))) == binding


def test_limit_that_binds_is_none_where_there_is_none() -> None:
    assert binding_limit(parse_limits("none")) is None


def test_headers_tell_of_the_window_with_their_limit() -> None:
    assert told("60", "54") == {"used": 6, "window": 60_000, "resets_in": 60_000}
    assert told("30", "10") == {"used": 20, "window": 1_000, "resets_in": 1_000}


@pytest.mark.parametrize("limit", ["300", "59", "60;w=60", "60, 60", "many", None])
def test_headers_of_a_window_that_is_not_known_tell_nothing(limit: str | None) -> None:
    assert told(limit, "0") is None


def test_headers_that_name_no_limit_tell_of_the_only_one() -> None:
    headers = {"x-ratelimit-remaining": "54"}
    found = usage_from_headers(parse_limits("60/1m"), headers, NOW)
    assert found == {"used": 6, "window": 60_000, "resets_in": 60_000}


def test_headers_of_two_limits_with_one_number_tell_nothing() -> None:
    headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0"}
    assert usage_from_headers(parse_limits("60/1m,60/1d"), headers, NOW) is None


@pytest.mark.parametrize(
    ("limit", "named"), [("300", 300), ("60", None), ("30", None), ("many", None), (None, None)]
)
def test_limit_that_is_not_known_is_named(limit: str | None, named: int | None) -> None:
    headers = {} if limit is None else {"x-ratelimit-limit": limit}
    assert unknown_limit(MINUTE, headers) == named
    assert unknown_limit((), headers) is None


def test_headers_tell_when_the_window_ends() -> None:
    found = told("60", "54", str(int(NOW.timestamp()) + 17))
    assert found is not None
    assert found["resets_in"] == 17_000


@pytest.mark.parametrize("ends_in", [-5, 0, 61, 10**10])
def test_headers_with_an_impossible_end_count_for_the_whole_window(ends_in: int) -> None:
    found = told("60", "54", str(int(NOW.timestamp()) + ends_in))
    assert found is not None
    assert found["resets_in"] == 60_000


@pytest.mark.parametrize("remaining", [None, "", "many", "-1", "1.5", "9" * 40, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_headers_without_a_remainder_tell_nothing(remaining: str | None) -> None:
    assert told("60", remaining) is None


def test_headers_of_a_provider_without_limits_tell_nothing() -> None:
    assert usage_from_headers((), {"x-ratelimit-remaining": "3"}, NOW) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("25/1d", "25 requests a day"),
        ("60/60s", "60 requests a minute"),
        ("1/1s", "1 request a second"),
        ("2000/1h", "2,000 requests an hour"),
        ("5/10m", "5 requests in 10 minutes"),
        ("2/36h", "2 requests in 36 hours"),
        ("1/900ms", "1 request in 900 milliseconds"),
    ],
)
def test_limit_is_told_in_words(text: str, words: str) -> None:
    (limit,) = parse_limits(text)
    assert in_words(limit) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (45, "45 s"),
        (60, "1 min"),
        (8640, "2 h 24 min"),
        (86_400, "1 d"),
        (90_061, "1 d 1 h 1 min 1 s"),
    ],
)
def test_time_is_told_in_words_with_nothing_left_out(seconds: int, words: str) -> None:
    assert time_in_words(seconds) == words
