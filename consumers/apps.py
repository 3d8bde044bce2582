"""The app that turns Kafka's price events into averages."""

from django.apps import AppConfig


class ConsumersConfig(AppConfig):
    """Consumers: Kafka to symbol_averages."""

    name = "consumers"
