"""The providers by their names."""

from django.conf import settings

from providers import alpha_vantage, finnhub
from providers.alpha_vantage import AlphaVantage
from providers.base import Provider
from providers.finnhub import Finnhub
from providers.simulated import Simulated
from providers.yahoo import Yahoo

_ADAPTERS: dict[str, Provider] = {
    adapter.name: adapter for adapter in (AlphaVantage(), Finnhub(), Yahoo(), Simulated())
}
_ALIASES = {"finhub": "finnhub"}
_KEY_SETTINGS = {
    AlphaVantage.name: alpha_vantage.KEY_SETTING,
    Finnhub.name: finnhub.KEY_SETTING,
}

PROVIDER_NAMES = tuple(_ADAPTERS)


class UnknownProviderError(LookupError):
    """There is no provider of that name; the message names those that there are."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no provider {name!r}; allowed: {', '.join(PROVIDER_NAMES)}")
        self.name = name


def normalise_name(name: str) -> str:
    """Give the name as the contract spells it, whatever its case; the alias finhub is finnhub.

    Raises UnknownProviderError.
    """
    lowered = name.lower()
    known = _ALIASES.get(lowered, lowered)
    if known not in _ADAPTERS:
        raise UnknownProviderError(name)
    return known


def get_provider(name: str) -> Provider:
    """Give the adapter of a provider; raises UnknownProviderError."""
    return _ADAPTERS[normalise_name(name)]


def key_setting(name: str) -> str | None:
    """Give the name of the setting that holds the provider's key, None where it needs none.

    Raises UnknownProviderError.
    """
    return _KEY_SETTINGS.get(normalise_name(name))


def missing_setting(name: str) -> str | None:
    """Give the name of the setting without which the provider cannot be asked, None if nothing is missing.

    Raises UnknownProviderError.
    """
    variable = key_setting(name)
    return variable if variable and not getattr(settings, variable) else None
