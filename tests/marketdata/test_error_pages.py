import pytest

from marketdata.error_pages import ErrorPageFilter


@pytest.mark.parametrize("name", ["PROVIDER_PROXY", "REDIS_URL", "CELERY_BROKER_URL", "FINNHUB_API_KEY"])
def test_settings_with_passwords_are_hidden(name: str) -> None:
    assert "secret" not in str(ErrorPageFilter().cleanse_setting(name, "redis://:secret@host"))


def test_other_settings_are_shown() -> None:
    assert ErrorPageFilter().cleanse_setting("PROVIDER_TIMEOUT_S", 10) == 10
