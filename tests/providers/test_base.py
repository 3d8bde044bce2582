"""Prices are exact or refused; errors survive what Celery does to them."""

import contextlib
import pickle
import time
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import (
    ErrorKind,
    NotConfiguredError,
    ProviderError,
    ProviderTimeoutError,
    to_price,
)


@pytest.mark.parametrize(
    ("value", "price"),
    [
        ("150.2500", "150.25"),
        ("100", "100"),
        ("100.000", "100"),
        (Decimal("1E+2"), "100"),
        (Decimal("1.0E5"), "100000"),
        ("1e3", "1000"),
        (Decimal("1E-7"), "0.0000001"),
        ("0.000000000001", "0.000000000001"),
        ("0.0000000000010", "0.000000000001"),
        ("999999999999.9999999999999999", "999999999999.9999999999999999"),
        ("1.23456789e-8", "0.0000000123456789"),
        ("007.50", "7.5"),
        ("1" + "." + "0" * 5000, "1"),
    ],
)
def test_price_keeps_the_digits_without_zeros_and_exponent(value: str | Decimal, price: str) -> None:
    result = to_price(value)
    assert format(result, "f") == price
    assert int(result.as_tuple().exponent) <= 0


@pytest.mark.parametrize(
    "value",
    [
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "sNaN",
            "",
            ".",
            "-",
            "--",
            "None",
            "0x10",
            "1,5",
            "$1",
            "1 2",
            "+1",
        ),
        *(
            "0",
            "0.00",
            "-0",
            "-1",
            "1_000",
            " 1",
            "1 ",
            "1\n",
            "\uff11\uff12",
            "\u0661",
            "1\x00",
            "1e",
            "1e99999999",
        ),
        *("1000000000000", "1e12", "0.00000000000000001", "1.00000000000000001", "1e1000000", "1e-1000000"),
        *("999999999999.99999999999999999", "1." + "0" * 5000 + "1"),
        *(
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("Infinity"),
            Decimal("-Infinity"),
            Decimal(0),
            Decimal(-1),
        ),
        *(Decimal("1E+12"), Decimal("1E+1000000"), Decimal("1E-1000000"), Decimal("1E+999999999999999999")),
    ],
)
def test_price_refused(value: str | Decimal) -> None:
    with pytest.raises(ProviderError) as caught:
        to_price(value)
    assert caught.value.kind == ErrorKind.MALFORMED


def test_price_of_a_megabyte_of_digits_is_refused_at_once() -> None:
    started = time.thread_time()
    for value in ("9" * 1_000_000, "0." + "1" * 1_000_000, Decimal("1E+999999999999999999")):
        with pytest.raises(ProviderError):
            to_price(value)
    assert time.thread_time() - started < 1


@settings(deadline=None)
@given(st.decimals(min_value="1e-16", max_value="999999999999.9999999999999999", places=16))
def test_price_of_allowed_number_is_that_number(number: Decimal) -> None:
    assert to_price(number) == number
    assert to_price(format(number, "f")) == number


@settings(deadline=None)
@given(st.one_of(st.text(max_size=40), st.decimals()))
def test_price_of_anything_is_in_range_or_refused(value: str | Decimal) -> None:
    with contextlib.suppress(ProviderError):
        price = to_price(value)
        assert 0 < price < 10**12
        assert -16 <= int(price.as_tuple().exponent) <= 0


def test_price_does_not_depend_on_the_thread_decimal_context() -> None:
    with localcontext(prec=3):
        assert format(to_price("123456.789"), "f") == "123456.789"


@pytest.mark.parametrize("error_type", [ProviderError, ProviderTimeoutError])
def test_provider_error_survives_pickling(error_type: type[ProviderError]) -> None:
    error = error_type(kind=ErrorKind.RATE_LIMITED, message="the limit is reached", retry_after=17.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_type
    assert (copy.kind, copy.message, copy.retry_after) == ("rate_limited", "the limit is reached", 17.0)
    assert str(copy) == "the limit is reached"


def test_not_configured_names_the_variable_also_after_pickling() -> None:
    error = pickle.loads(pickle.dumps(NotConfiguredError(provider="finnhub", variable="FINNHUB_API_KEY")))
    assert str(error) == "finnhub is not configured: set FINNHUB_API_KEY"
    assert (error.provider, error.variable) == ("finnhub", "FINNHUB_API_KEY")
