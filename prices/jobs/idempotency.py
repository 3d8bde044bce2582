"""Requests that are done once: one that comes again with its key gets the same answer, and does nothing.

The answer is written in the transaction that does what was asked, so there is never one without the other. A
lock of that transaction tells who is under way: it ends with it, also where its process was killed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from prices.models import IdempotencyKey

KEPT_FOR = timedelta(hours=24)
# PostgreSQL hears nothing of a host that vanished: after this time it ends the transaction all the same.
UNDER_WAY_AT_MOST = "30s"
_TRY_LOCK = """
    SELECT set_config('transaction_timeout', %s, true),
           pg_try_advisory_xact_lock(hashtextextended('idempotency key ' || %s, 0))
"""


class KeyInUseError(Exception):
    """A request with this key is still under way."""


class KeyReusedError(Exception):
    """Another request had this key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered: plain data, and headers."""

    body: dict[str, Any]
    headers: dict[str, str]


def answer_once(key: str, request: Mapping[str, Any], make: Callable[[], Answer], *, now: datetime) -> Answer:
    """Return what `make` returns, or what it returned for the same key and request in the last 24 hours.

    `request` is plain data. What `make` raises is not kept. Raises KeyInUseError, KeyReusedError.
    """
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    with transaction.atomic():
        _lock(key)
        known = IdempotencyKey.objects.filter(key=key).first()
        if known is not None and known.created_at > now - KEPT_FOR:
            if known.fingerprint != fingerprint:
                raise KeyReusedError
            return Answer(**json.loads(known.answer))
        answer = make()
        kept = json.dumps(asdict(answer))
        IdempotencyKey(key=key, fingerprint=fingerprint, answer=kept, created_at=now).save(
            force_insert=known is None
        )
    return answer


def delete_expired_keys(*, now: datetime) -> None:
    """Forget the answers that were given over 24 hours ago."""
    IdempotencyKey.objects.filter(created_at__lte=now - KEPT_FOR).delete()


def _lock(key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_TRY_LOCK, [UNDER_WAY_AT_MOST, key])
        _timeout, is_mine = cursor.fetchone()
    if not is_mine:
        raise KeyInUseError
