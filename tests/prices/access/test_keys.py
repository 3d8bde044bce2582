"""API keys as they are stored, found and revoked."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from prices.access.keys import InvalidKeyError, UnknownKeyError, create_key, find_key, key_state, revoke_key
from prices.access.rights import Access, MissingScopeError
from prices.clock import database_now
from prices.models import ApiClient, ApiKey, Scope

pytestmark = pytest.mark.django_db


def refusal(text: str) -> str:
    with pytest.raises(InvalidKeyError) as caught:
        find_key(text)
    return str(caught.value)


def test_key_opens_what_its_scopes_say_as_its_client() -> None:
    made = create_key("dashboard", [Scope.JOBS, Scope.READ, Scope.READ], expires_at=None)
    other = create_key("dashboard", [Scope.READ], expires_at=None)
    assert (made.is_new_client, other.is_new_client) == (True, False)
    found = find_key(made.text)
    assert found.access == Access(frozenset({Scope.READ, Scope.JOBS}), ApiClient.objects.get().id)
    assert found.access.client_id == find_key(other.text).access.client_id
    assert made.row.scopes == ["read", "jobs"]


def test_what_is_stored_opens_nothing() -> None:
    made = create_key("dashboard", [Scope.READ], expires_at=None)
    row = ApiKey.objects.values().get()
    assert made.text.startswith(row["prefix"])
    assert row["digest"] == hashlib.sha256(made.text.encode()).hexdigest()
    secret = made.text.removeprefix(row["prefix"])
    assert not any(secret in str(value) for value in row.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
        lambda key: key[:-1],
        lambda key: key + "a",
        lambda key: key.upper(),
        lambda key: f"{key}\n",
        lambda key: key.replace("mdk_", "mdk_0")[:-1],
        lambda key: "",
        lambda key: "mdk_",
        lambda key: "é" * 60,
    ],
)
def test_text_that_is_no_key_is_not_known(change: Callable[[str], str]) -> None:
    made = create_key("dashboard", [Scope.READ], expires_at=None)
    assert refusal(change(made.text)) == "is not known"


def test_revoked_key_opens_nothing_from_then_on() -> None:
    made = create_key("dashboard", [Scope.READ], expires_at=None)
    find_key(made.text)
    first = revoke_key(made.row.prefix)
    assert refusal(made.text) == f"was revoked at {first.revoked_at:%Y-%m-%d %H:%M:%S} UTC"
    assert revoke_key(made.row.prefix).revoked_at == first.revoked_at
    # Who holds a part of it alone is not told that it ever was one.
    assert refusal(f"{made.row.prefix}_{'a' * 43}") == "is not known"
    with pytest.raises(UnknownKeyError):
        revoke_key("mdk_aaaaaaaaaaaa")


def test_key_opens_until_its_end() -> None:
    now = database_now()
    later = create_key("dashboard", [Scope.READ], expires_at=now + timedelta(hours=1))
    over = create_key("dashboard", [Scope.READ], expires_at=now - timedelta(microseconds=1))
    find_key(later.text)
    assert refusal(over.text).startswith("expired at ")
    keys = {made.row.prefix: key_state(made.row, now=now) for made in (later, over)}
    assert [words.split()[0] for words in keys.values()] == ["until", "expired"]


def test_use_is_noted_once_a_minute() -> None:
    made = create_key("dashboard", [Scope.READ], expires_at=None)
    find_key(made.text)
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    with CaptureQueriesContext(
        connection,
    ) as queries:
        find_key(made.text)
    assert len(queries) == 1
    ApiKey.objects.update(last_used_at=first - timedelta(seconds=61))
    find_key(made.text)
    assert ApiKey.objects.filter(last_used_at__gt=first).exists()


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_to_note_a_use() -> None:
    made = create_key("dashboard", [Scope.READ], expires_at=None)

    def find() -> None:
        find_key(made.text)
        connection.close()

    with transaction.atomic():
        ApiKey.objects.select_for_update().get()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(find).result(60)
    assert ApiKey.objects.get().last_used_at is None


@pytest.mark.django_db(transaction=True)
def test_use_that_cannot_be_noted_refuses_nobody() -> None:
    made = create_key("dashboard", [Scope.READ], expires_at=None)
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    try:
        assert find_key(made.text).access.client_id == made.row.client_id
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")


def test_scope_is_needed_and_admin_has_all() -> None:
    reader = Access(frozenset({Scope.READ}))
    reader.require(Scope.READ)
    with pytest.raises(MissingScopeError) as caught:
        reader.require(Scope.JOBS)
    assert (caught.value.needed, caught.value.scopes) == (Scope.JOBS, [Scope.READ])
    for scope in Scope:
        Access(frozenset({Scope.ADMIN})).require(scope)
