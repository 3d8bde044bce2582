"""Faults: what is allowed, what is refused, and that a refusal changes nothing."""

import math
from typing import Any

import pytest

from providers.simulator.faults import Faults, FaultsError, read_number

EVERY_FAULT: dict[str, object] = {
    "latency_s": 0.25,
    "jitter_s": 600,
    "error_rate": 1,
    "error": "hang",
    "rate_limit": "1/1s,25/1d",
    "invalid_key": True,
    "not_entitled": True,
    "stale_s": 3600,
    "outage": True,
}


def test_every_fault_can_be_set() -> None:
    assert Faults().changed(EVERY_FAULT).as_dict() == EVERY_FAULT
    assert set(EVERY_FAULT) == set(Faults().as_dict())
    assert Faults().changed(Faults().as_dict()) == Faults()


def test_what_is_not_named_stays() -> None:
    changed = Faults(latency_s=2).changed({"outage": True})
    assert changed == Faults(latency_s=2, outage=True)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("latency_s", -1, "from 0 to 600"),
        ("latency_s", math.nan, "from 0 to 600"),
        ("jitter_s", math.inf, "from 0 to 600"),
        ("latency_s", True, "from 0 to 600"),
        ("latency_s", "2", "from 0 to 600"),
        ("error_rate", 1.01, "from 0 to 1"),
        ("error_rate", None, "from 0 to 1"),
        ("error", "404", "one of 502, 503, html, malformed, truncated, reset, hang, any"),
        ("error", 502, "one of 502"),
        ("error", [], "one of 502"),
        ("rate_limit", "60", "limits such as 60/1m"),
        ("rate_limit", 60, "limits such as 60/1m"),
        ("rate_limit", "", "limits such as 60/1m"),
        ("stale_s", 1.5, "a whole number"),
        ("stale_s", 10**400, "a whole number"),
        ("outage", "true", "true or false"),
        ("invalid_key", 1, "true or false"),
        ("not_entitled", None, "true or false"),
    ],
)
def test_bad_value_is_refused_with_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(FaultsError) as caught:
        Faults().changed({name: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name} must be ")
    assert allowed in problem
    assert len(problem) < 200


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(FaultsError) as caught:
        Faults().changed({"latency": 1, "outage": True, "error_rate": 7})
    first, second = caught.value.problems
    assert first.startswith("'latency' is no fault: there are latency_s, jitter_s, error_rate,")
    assert second == "error_rate must be a number from 0 to 1, not 7"


def test_text_of_an_option_becomes_a_number() -> None:
    assert [read_number(text) for text in ("2", "0.5", "1e2", "two")] == [2, 0.5, 100, "two"]
