"""The providers by their names."""

from django.conf import settings

from providers.adapters.alpha_vantage import AlphaVantage
from providers.adapters.finnhub import Finnhub
from providers.adapters.simulated import Simulated
from providers.adapters.yahoo.adapter import Yahoo
from providers.base import Provider
from providers.keys import KEY_SETTINGS

_ADAPTERS: dict[str, Provider] = {
    adapter.name: adapter for adapter in (AlphaVantage(), Finnhub(), Yahoo(), Simulated())
}
PROVIDER_NAMES = tuple(_ADAPTERS)
ALIASES = {"finhub": "finnhub"}


class UnknownProviderError(LookupError):
    """There is no provider of that name; the message names those that there are."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no provider {name!r}; allowed: {', '.join(PROVIDER_NAMES)}")
        self.name = name


def normalise_name(name: str) -> str:
    """Return the name as the contract spells it, whatever its case; the alias finhub is finnhub.

    Raises UnknownProviderError.
    """
    lowered = name.lower()
    known = ALIASES.get(lowered, lowered)
    if known not in _ADAPTERS:
        raise UnknownProviderError(name)
    return known


def get_provider(name: str) -> Provider:
    """Return the adapter of a provider; raises UnknownProviderError."""
    return _ADAPTERS[normalise_name(name)]


def key_setting(name: str) -> str | None:
    """Return the name of the setting that holds the provider's key, None where it needs none.

    Raises UnknownProviderError.
    """
    return KEY_SETTINGS.get(normalise_name(name))


def missing_setting(name: str) -> str | None:
    """Return the name of the setting without which the provider cannot be asked, None if nothing is missing.

    Raises UnknownProviderError.
    """
    variable = key_setting(name)
    return variable if variable and not getattr(settings, variable) else None
