"""Looking for a secret, in all of its spellings, in every place where the service leaves something."""

import base64
import contextlib
import gzip
import html
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import redis
from confluent_kafka import Consumer
from django.contrib import admin
from django.db import connection, models
from django.test import Client
from django.urls import reverse

from prices.models import RawMarketData

# Where a secret may be found: a name for people, and what stands there.
Place = tuple[str, bytes]

Spell = Callable[[str], str]
SPELLINGS: Mapping[str, Spell] = {
    "plain": str,
    "quote": quote,
    "quote all": lambda text: quote(text, safe=""),
    "quote plus": quote_plus,
    "quote lower": lambda text: quote(text, safe="").lower(),
    "quote each": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "quote twice": lambda text: quote(quote(text, safe=""), safe=""),
    "json": lambda text: json.dumps(text)[1:-1],
    "json slashes": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "json each": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "json twice": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "html": html.escape,
    "html each": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of more": lambda text: base64.urlsafe_b64encode(f"user:{text}".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}
_CODES = ("utf-8", "utf-16-le", "utf-16-be")


def spellings_of(secret: str) -> set[bytes]:
    """Return every form in which the secret counts as found, in lower case; its halves too."""
    texts = {spell(secret) for spell in SPELLINGS.values()}
    middle = len(secret) // 2
    texts |= {secret[:middle], secret[middle:], repr(secret)[1:-1]}
    found = {text.lower().encode(code) for text in texts for code in _CODES}
    found |= {secret.encode().hex().encode(), *_base64_forms(secret)}
    return {form for form in found if len(form) >= 8}


def _base64_forms(secret: str) -> Iterator[bytes]:
    # What stands before a text shifts its base64; the characters at both ends depend on neighbours.
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"x" * before + secret.encode())[4:-4].lower()


def find(secrets: Iterable[str], places: Iterable[Place]) -> list[str]:
    """Return the places in which a spelling of a secret stands: their names, and what stands there."""
    pattern = re.compile(b"|".join(re.escape(form) for secret in secrets for form in spellings_of(secret)))
    return [
        f"{name}: {reading[max(0, match.start() - 80) : match.end() + 20]!r}"
        for name, content in places
        for reading in _readings(content)
        if (match := pattern.search(reading))
    ]


def _readings(content: bytes) -> Iterator[bytes]:
    yield content.lower()
    with contextlib.suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(content).lower()


def files_below(folder: Path) -> Iterator[Place]:
    """Yield every file of a folder: logs above all."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield f"file {path.name}", path.read_bytes()


def rows_of_all_tables() -> Iterator[Place]:
    """Yield each row of each table of the database as text, and each bytea in it as bytes."""
    for table in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT row_to_json(t)::text, t.* FROM "{table}" t')
            for text, *values in cursor.fetchall():
                yield f"table {table}", text.encode()
                yield from ((f"table {table}", bytes(v)) for v in values if isinstance(v, bytes | memoryview))


def messages_of(topic: str, *, servers: str, count: int) -> Iterator[Place]:
    """Yield key, value and headers of the topic's first `count` messages, or of those of 10 s."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{topic}-search",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    try:
        for message in consumer.consume(count, timeout=10):
            assert message.error() is None
            parts = [
                message.key(),
                message.value(),
                *(part for pair in message.headers() or [] for part in pair),
            ]
            for part in parts:
                yield f"kafka {topic}", part.encode() if isinstance(part, str) else part or b""
    finally:
        consumer.close()


def keys_and_values_of_redis(url: str) -> Iterator[Place]:
    """Yield every key and value of a Redis database, whatever their type."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1000):
            yield "redis key", key
            for value in _values(client, key):
                yield f"redis {key.decode()}", value


def _values(client: redis.Redis, key: bytes) -> list[bytes]:
    read: Mapping[bytes, Callable[[bytes], Any]] = {
        b"string": lambda key: [client.get(key)],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        # A key that ended meanwhile.
        b"none": lambda _: [],
    }
    kind: Any = client.type(key)
    return [value for value in read[kind](key) if value is not None]


def admin_pages(client: Client) -> Iterator[Place]:
    """Yield the admin's list of each table of the service, and the pages of some of its rows.

    Of answers these are one for each thing that can go wrong, else ten: the rows are searched themselves.
    """
    for model in admin.site._registry:
        if model._meta.app_label == "prices":
            name = f"admin:prices_{model._meta.model_name}"
            addresses = [reverse(f"{name}_change", args=[key]) for key in _some_keys(model)]
            for address in [reverse(f"{name}_changelist"), *addresses]:
                answer = client.get(address)
                assert answer.status_code == 200, address
                yield f"admin {model._meta.model_name}", answer.content


def _some_keys(model: type[models.Model]) -> list[UUID]:
    if model is RawMarketData:
        rows = RawMarketData.objects.values_list("symbols", "id")
        return list({symbols[0].partition("-")[2]: key for symbols, key in rows}.values())
    return list(model._default_manager.values_list("pk", flat=True)[:10])


def answer_of(name: str, answer: Any) -> list[Place]:
    """Return an answer of the service: its body, and its headers."""
    headers = "\n".join(f"{key}: {value}" for key, value in answer.headers.items())
    return [(f"answer {name}", answer.content), (f"headers {name}", headers.encode())]
