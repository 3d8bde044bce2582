"""The key that a provider is asked with."""

from django.conf import settings

from providers.base import NotConfiguredError
from providers.keys import KEY_SETTINGS


def key_of(provider: str) -> str:
    """Return the provider's key. Raises NotConfiguredError where it is not set."""
    variable = KEY_SETTINGS[provider]
    key: str = getattr(settings, variable)
    if not key:
        raise NotConfiguredError(provider=provider, variable=variable)
    return key
