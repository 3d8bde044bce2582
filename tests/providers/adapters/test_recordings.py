"""Every recorded answer leads to what its description says."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from providers.base import ProviderError, Quote
from providers.registry import get_provider
from tests.providers.recordings import FOLDER, Recording, load_recordings

RECORDINGS = load_recordings()

pytestmark = pytest.mark.skipif(not RECORDINGS, reason=f"the recorded answers are not at {FOLDER}")


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_recorded_answer_gives_what_is_expected(recording: Recording) -> None:
    results = get_provider(recording.provider).parse(recording.answer)
    assert tuple(results) == recording.symbols
    for symbol, expected in zip(recording.symbols, recording.expected, strict=True):
        if expected["kind"] == "quote":
            assert_quote(results[symbol], symbol, expected)
        else:
            assert_error(results[symbol], expected)


def assert_quote(result: Quote | ProviderError, symbol: str, expected: dict[str, Any]) -> None:
    assert isinstance(result, Quote), result
    assert result.symbol == symbol == expected["symbol"]
    assert result.price == Decimal(expected["price"])
    # The provider's digits without trailing zeros: 150.2500 is 150.25, and 100 stays 100.
    assert (
        format(result.price, "f") == re.sub(r"\.?0+$", "", expected["price"]) or "." not in expected["price"]
    )
    if "currency" in expected:
        assert result.currency == expected["currency"]
    if expected.get("as_of_date"):
        assert result.precision == "day"
        assert result.observed_at is not None
        assert result.observed_at.date() == date.fromisoformat(expected["as_of_date"])
    elif expected["timestamp"] is None:
        assert (result.observed_at, result.precision) == (None, "unknown")
    else:
        assert (result.observed_at, result.precision) == (
            datetime.fromisoformat(expected["timestamp"]),
            "second",
        )
        assert result.observed_at is not None
        assert result.observed_at.tzinfo is UTC


def assert_error(result: Quote | ProviderError, expected: dict[str, Any]) -> None:
    assert isinstance(result, ProviderError), result
    assert result.kind in {expected["error"], *expected.get("also_acceptable", [])}
