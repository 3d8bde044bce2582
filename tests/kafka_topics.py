"""Change settings of a topic in the real Kafka."""

from collections.abc import Mapping
from itertools import count

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from prices.publishing.kafka_clients import make_admin
from tests.waiting import wait_until

_marks = count(1)


def change_topic(topic: str, **values: str) -> None:
    """Change settings (with underscores for dots), and wait until the broker goes by them.

    Kafka answers before it does. It takes up changes in their order, and names each before it goes by it: so
    once it names a second one, it goes by the first.
    """
    admin = make_admin()
    changes = {name.replace("_", "."): value for name, value in values.items()}
    for each in (changes, {"segment.jitter.ms": str(next(_marks))}):
        _change(admin, topic, each)


def _change(admin: AdminClient, topic: str, values: Mapping[str, str]) -> None:
    resource = ConfigResource("topic", topic)
    for name, value in values.items():
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result(20)

    def is_named() -> bool:
        asked = ConfigResource("topic", topic)
        found = admin.describe_configs([asked])[asked].result(20)
        return all(found[name].value == value for name, value in values.items())

    wait_until(is_named, what=f"{topic} has {values}")
