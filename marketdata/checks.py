"""System checks: what settings cannot see by themselves."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import connections

from marketdata.env import env_text
from prices.access.rights import needs_keys
from prices.publishing.kafka_clients import make_admin
from providers.keys import KEY_SETTINGS, SIMULATED
from providers.registry import PROVIDER_NAMES

MIN_POSTGRESQL = 180000
# Shorter ones could stand in an answer by chance: hiding them would rewrite prices.
MIN_KEY_LENGTH = 8

# What a program listens on or calls on its own machine; 0.0.0.0 is no name that another host has.
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - a name, no address to bind
_HOSTS = {
    "ALPHA_VANTAGE_BASE_URL": "alphavantage.co",
    "FINNHUB_BASE_URL": "finnhub.io",
    "YAHOO_BASE_URL": "yahoo.com",
}


@register(Tags.database)
def check_postgresql(*, databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    """Refuse a server older than 18: its `uuidv7()` makes the ids."""
    return [
        Error(
            f"PostgreSQL {connections[alias].pg_version // 10000} is too old",  # type: ignore[attr-defined]
            hint="Point DATABASE_URL at PostgreSQL 18 or newer.",
            id="marketdata.E001",
        )
        for alias in databases or []
        if connections[alias].pg_version < MIN_POSTGRESQL  # type: ignore[attr-defined]
    ]


@register
def check_addresses(**options: Any) -> list[CheckMessage]:
    """Refuse to go on without the addresses of Redis and Kafka."""
    wanted = {"REDIS_URL": "marketdata.E002", "KAFKA_BOOTSTRAP_SERVERS": "marketdata.E003"}
    return [
        Error(f"{name} is not set", hint="`make run` sets it by itself; else see .env.example.", id=check_id)
        for name, check_id in wanted.items()
        if not getattr(settings, name)
    ]


@register
def check_kafka_security(**options: Any) -> list[CheckMessage]:
    """Refuse a half of what Kafka needs to let the service in, and what would not be used."""
    uses_sasl = "SASL" in settings.KAFKA_SECURITY_PROTOCOL
    uses_tls = "SSL" in settings.KAFKA_SECURITY_PROTOCOL
    user, password = bool(settings.KAFKA_SASL_USERNAME), bool(settings.KAFKA_SASL_PASSWORD)
    certificate, key = bool(settings.KAFKA_CERTIFICATE_FILE), bool(settings.KAFKA_KEY_FILE)
    faults = {
        "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD must be set": uses_sasl and not (user and password),
        "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD are not used": not uses_sasl and (user or password),
        "KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE must both be set": certificate != key,
        "KAFKA_CA_FILE and KAFKA_CERTIFICATE_FILE are not used": not uses_tls
        and (certificate or bool(settings.KAFKA_CA_FILE)),
    }
    texts = [text for text, is_so in faults.items() if is_so]
    if uses_tls and not texts:
        texts = _faults_of_tls()
    hint = f"KAFKA_SECURITY_PROTOCOL is {settings.KAFKA_SECURITY_PROTOCOL}."
    return [Error(text, hint=hint, id="marketdata.E006") for text in texts]


def _faults_of_tls() -> list[str]:
    # librdkafka reads the files when a client is made, and connects to nobody yet.
    try:
        make_admin()
    except KafkaException as error:
        return [f"the files of Kafka's certificates cannot be used: {error.args[0].str()}"]
    return []


@register(Tags.security, deploy=True)
def check_api_auth(**options: Any) -> list[CheckMessage]:
    """Warn of a service that others than this machine reach and anybody may call, where nobody said so."""
    public = [host for host in settings.ALLOWED_HOSTS if host.strip("[]") not in _LOOPBACK]
    if not public or env_text("API_AUTH") or needs_keys():
        return []
    return [
        CheckWarning(
            f"anybody who reaches {', '.join(public)} may read prices, and create and stop jobs",
            hint="Set API_AUTH=keys and create keys by `manage.py api_key create`;"
            " or API_AUTH=open, if that is meant.",
            id="marketdata.W002",
        )
    ]


@register
def check_provider_order(**options: Any) -> list[CheckMessage]:
    """Refuse an order that is empty or names what is no real provider."""
    real = [name for name in PROVIDER_NAMES if name != SIMULATED]
    wrong = [name for name in settings.PROVIDER_ORDER if name not in real]
    if settings.PROVIDER_ORDER and not wrong:
        return []
    hint = f"Name one or more of {', '.join(real)}, with commas between them."
    return [Error("PROVIDER_ORDER cannot be used", hint=hint, id="marketdata.E004")]


@register
def check_key_lengths(**options: Any) -> list[CheckMessage]:
    """Refuse keys so short that hiding them in answers would rewrite prices."""
    return [
        Error(
            f"{name} is too short",
            hint=f"A key has at least {MIN_KEY_LENGTH} characters.",
            id="marketdata.E005",
        )
        for name in KEY_SETTINGS.values()
        if 0 < len(getattr(settings, name)) < MIN_KEY_LENGTH
    ]


@register
def check_provider_hosts(**options: Any) -> list[CheckMessage]:
    """Warn of prices that come from elsewhere than from the provider under whose name they are stored."""
    return [
        CheckWarning(
            f"{name} is not an address of {host}",
            hint="What is answered there is stored and served as the provider's own prices.",
            id="marketdata.W001",
        )
        for name, host in _HOSTS.items()
        if (address := getattr(settings, name)) and not f".{urlsplit(address).hostname}".endswith(f".{host}")
    ]
