"""The providers by their names."""

import pytest
from pytest_django import Settings

from providers.registry import (
    PROVIDER_NAMES,
    UnknownProviderError,
    get_provider,
    missing_setting,
    normalise_name,
)


def test_names_are_those_of_the_contract() -> None:
    assert set(PROVIDER_NAMES) == {"alpha_vantage", "finnhub", "yfinance", "simulated"}


@pytest.mark.parametrize("name", PROVIDER_NAMES)
def test_provider_has_its_name_in_any_case(name: str) -> None:
    assert get_provider(name).name == name
    assert get_provider(name.upper()) is get_provider(name.title()) is get_provider(name)


@pytest.mark.parametrize("name", ["finhub", "FinHub", "FINNHUB"])
def test_alias_is_finnhub(name: str) -> None:
    assert normalise_name(name) == "finnhub"


@pytest.mark.parametrize("name", ["", "yahoo", " finnhub", "finnhub\n", "alpha-vantage"])
def test_unknown_name_is_refused_with_those_allowed(name: str) -> None:
    for ask in (normalise_name, get_provider, missing_setting):
        with pytest.raises(UnknownProviderError, match="alpha_vantage, finnhub, yfinance, simulated"):
            ask(name)


@pytest.mark.parametrize(
    ("name", "variable"), [("alpha_vantage", "ALPHA_VANTAGE_API_KEY"), ("FINHUB", "FINNHUB_API_KEY")]
)
def test_setting_is_missing_until_it_has_a_value(name: str, variable: str, settings: Settings) -> None:
    setattr(settings, variable, "")
    assert missing_setting(name) == variable
    setattr(settings, variable, "12345678")
    assert missing_setting(name) is None


@pytest.mark.parametrize("name", ["yfinance", "simulated"])
def test_provider_that_takes_no_key_misses_none(name: str) -> None:
    assert missing_setting(name) is None
