"""The project itself: it wires the parts and checks what it runs on."""

from django.apps import AppConfig


class MarketdataConfig(AppConfig):
    """Settings, health and system checks."""

    name = "marketdata"

    def ready(self) -> None:
        """Register the system checks."""
        from marketdata import checks  # noqa: F401 - Django registers checks when apps are loaded
