import pytest
from pytest_django import Settings

from prices.publishing.publisher import forget_publisher


@pytest.fixture
def kafka_away(settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    forget_publisher()
