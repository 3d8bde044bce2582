"""API keys: made, found by what a caller sends, revoked.

A key is `mdk_`, 12 characters that name it, `_`, and 43 that nobody else knows: 256 random bits, of which a
plain SHA-256 is as good as a slow hash, which is for passwords that people choose.
"""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from django.db import DatabaseError, connection, transaction

from prices.access.generation import end_generation
from prices.access.rights import Access
from prices.clock import database_now
from prices.models.api_client import ApiClient, ApiKey, Scope

log = structlog.get_logger(__name__)

_ALPHABET = string.ascii_letters + string.digits
_NAME_CHARACTERS = 12
_SECRET_CHARACTERS = 43
_KEY = re.compile(rf"(?P<prefix>mdk_[A-Za-z0-9]{{{_NAME_CHARACTERS}}})_[A-Za-z0-9]{{{_SECRET_CHARACTERS}}}")
LONGEST_NAME = 100
PREFIX_LENGTH = len("mdk_") + _NAME_CHARACTERS
# The use of a key is written down once a minute.
_FIND = """
SELECT id, client_id, digest, scopes, expires_at, revoked_at, clock_timestamp(),
       coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)
FROM api_keys WHERE prefix = %s
"""
# Of callers at the same time one writes it, and none waits.
_NOTE_USE = """
UPDATE api_keys SET last_used_at = clock_timestamp()
WHERE id = (SELECT id FROM api_keys WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED)
"""


class InvalidKeyError(Exception):
    """The key opens nothing; the text says why."""


class UnknownKeyError(LookupError):
    """There is no key of this prefix."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is what its client sends: nobody can read it later."""

    row: ApiKey
    text: str
    is_new_client: bool


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that opens something: its id, what it opens, until when."""

    id: UUID
    access: Access
    expires_at: datetime | None

    def is_over(self, now: datetime) -> bool:
        """Return whether it has expired."""
        return self.expires_at is not None and self.expires_at <= now


def read_client_name(text: str) -> str:
    """Return the name of a client without the space around it.

    Raises ValueError where it is empty, longer than LONGEST_NAME, or holds what cannot be seen: a line's end,
    what moves a terminal's cursor, or what makes two names look the same.
    """
    name = text.strip()
    if not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(text)
    return name


def create_key(client_name: str, scopes: Collection[Scope], *, expires_at: datetime | None) -> NewKey:
    """Create a key of the client of this name, and the client where there is none."""
    prefix = f"mdk_{_random(_NAME_CHARACTERS)}"
    text = f"{prefix}_{_random(_SECRET_CHARACTERS)}"
    with transaction.atomic():
        client, is_new = ApiClient.objects.get_or_create(name=client_name)
        # In the order in which they are defined, each once.
        kept = [scope for scope in Scope if scope in scopes]
        row = ApiKey(client=client, prefix=prefix, digest=_digest(text), scopes=kept, expires_at=expires_at)
        row.save(force_insert=True)
    log.info("api_key.created", client=client_name, prefix=prefix, scopes=list(map(str, kept)))
    return NewKey(row, text, is_new)


def find_key(text: str) -> FoundKey:
    """Return the key that a caller sends, as it is now. Raises InvalidKeyError where it opens nothing."""
    form = _KEY.fullmatch(text)
    row = _read(form["prefix"]) if form else None
    # Whoever does not hold the whole key is not told what became of it.
    if row is None or not hmac.compare_digest(row[2], _digest(text)):
        raise InvalidKeyError("is not known")
    key_id, client_id, _digest_kept, scopes, expires_at, revoked_at, now, is_to_note = row
    if revoked_at is not None:
        raise InvalidKeyError(f"was revoked at {_in_words(revoked_at)}")
    if expires_at is not None and expires_at <= now:
        raise InvalidKeyError(f"expired at {_in_words(expires_at)}")
    if is_to_note:
        _note_use(key_id)
    return FoundKey(key_id, Access(frozenset(map(Scope, scopes)), client_id), expires_at)


def revoke_key(prefix: str) -> ApiKey:
    """Let a key open nothing from now on; one that was revoked before stays so. Raises UnknownKeyError."""
    with transaction.atomic():
        row = ApiKey.objects.select_for_update(of=["self"]).select_related("client").filter(prefix=prefix)
        key = row.first()
        if key is None:
            raise UnknownKeyError(prefix)
        if key.revoked_at is None:
            key.revoked_at = database_now()
            key.save(update_fields=["revoked_at"])
            log.info("api_key.revoked", client=key.client.name, prefix=prefix)
    # Once that is committed: whoever reads the key from then on reads it as revoked.
    end_generation()
    return key


def key_state(key: ApiKey, *, now: datetime) -> str:
    """Return whether a key opens anything, and until when, in words."""
    if key.revoked_at is not None:
        return f"revoked {_date(key.revoked_at)}"
    if key.expires_at is None:
        return "for good"
    return f"{'expired' if key.expires_at <= now else 'until'} {_date(key.expires_at)}"


def _read(prefix: str) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [prefix])
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def _note_use(key_id: UUID) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(_NOTE_USE, [key_id])
    except DatabaseError as error:
        # A database that takes no writes can be read all the same.
        log.warning("api_key.use_not_noted", reason=str(error).partition("\n")[0])


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _date(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _in_words(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
