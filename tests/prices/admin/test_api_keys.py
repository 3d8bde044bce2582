"""API keys in the admin."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from prices.access.keys import InvalidKeyError, create_key, find_key, revoke_key
from prices.models import ApiKey, Scope

pytestmark = pytest.mark.django_db
LIST = reverse("admin:prices_apikey_changelist")
ADD = reverse("admin:prices_apikey_add")
NEW = {
    "client_name": "dashboard",
    "scopes": ["read", "jobs"],
    "expires_at_0": "2999-12-31",
    "expires_at_1": "00:00",
}


def test_new_key_is_shown_once(admin_client: Client) -> None:
    page = admin_client.post(ADD, NEW, follow=True).content.decode()
    (text,) = re.findall(r"mdk_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}", page)
    key = ApiKey.objects.get()
    assert find_key(text).id == key.id
    assert (key.client.name, key.scopes, f"{key.expires_at:%Y-%m-%d}") == (
        "dashboard",
        ["read", "jobs"],
        "2999-12-31",
    )
    for address in (LIST, reverse("admin:prices_apikey_change", args=[key.pk])):
        shown = admin_client.get(address).content.decode()
        assert key.prefix in shown
        assert text not in shown
        assert key.digest not in shown


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"client_name": ""}, "This field is required."),
        ({"client_name": "a\nb"}, "Only characters that can be seen, and spaces."),
        ({"client_name": "a\x1b[31m"}, "Only characters that can be seen, and spaces."),
        ({"scopes": []}, "This field is required."),
        ({"scopes": ["write"]}, "is not one of the available choices"),
        ({"expires_at_0": "2020-01-01"}, "This is over."),
    ],
)
def test_key_that_cannot_be_is_refused(admin_client: Client, changes: dict[str, object], told: str) -> None:
    assert told in admin_client.post(ADD, NEW | changes).content.decode()
    assert ApiKey.objects.count() == 0


def test_keys_are_revoked_by_an_action(admin_client: Client) -> None:
    made = [create_key("team", [Scope.READ], expires_at=None) for _ in range(3)]
    chosen = {"action": "revoke", "_selected_action": [str(each.row.pk) for each in made[:2]]}
    page = admin_client.post(LIST, chosen, follow=True).content.decode()
    assert "2 revoked: they open nothing from now on." in page
    for each in made[:2]:
        with pytest.raises(InvalidKeyError):
            find_key(each.text)
    find_key(made[2].text)


def test_page_of_a_key_shows_what_it_is_and_that_it_was_revoked(admin_client: Client) -> None:
    made = create_key("team", [Scope.READ, Scope.JOBS], expires_at=None)
    address = reverse("admin:prices_apikey_change", args=[made.row.pk])
    assert shown(admin_client.get(address)) >= {"team", made.row.prefix, "read, jobs", "for good"}
    revoked = revoke_key(made.row.prefix)
    told = f"revoked {revoked.revoked_at:%Y-%m-%d}"
    assert told in shown(admin_client.get(address))


def shown(page: Any) -> set[str]:
    """Return the values that a page shows and nobody can change."""
    found = re.findall(r'<div class="readonly">(.*?)</div>', page.content.decode(), re.DOTALL)
    return {re.sub("<[^>]+>", "", each).strip() for each in found}


def test_history_of_a_key_tells_who_revoked_it(admin_client: Client) -> None:
    made = [create_key("team", [Scope.READ], expires_at=None) for _ in range(2)]
    revoke_key(made[1].row.prefix)
    chosen = {"action": "revoke", "_selected_action": [str(each.row.pk) for each in made]}
    admin_client.post(LIST, chosen)
    # Of the one that was revoked before there is nothing to tell.
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.username, entry.change_message) == (
        str(made[0].row.pk),
        "admin",
        "Revoked.",
    )


def test_search_finds_a_client_and_a_beginning(admin_client: Client) -> None:
    made = [create_key(name, [Scope.READ], expires_at=None) for name in ("alpha", "beta")]
    for term in ("bet", made[1].row.prefix):
        page = admin_client.get(LIST, {"q": term}).content.decode()
        assert made[1].row.prefix in page
        assert made[0].row.prefix not in page


def test_key_opens_no_more_than_its_maker_may(client: Client) -> None:
    user = User.objects.create_user("keys", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="add_apikey"))
    client.force_login(user)
    assert client.post(ADD, NEW | {"scopes": ["admin"]}).status_code == 403
    assert not ApiKey.objects.exists()


def test_viewer_neither_creates_nor_revokes(client: Client) -> None:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(user)
    made = create_key("team", [Scope.READ], expires_at=None)
    assert client.get(LIST).status_code == 200
    assert client.post(ADD, NEW).status_code == 403
    client.post(LIST, {"action": "revoke", "_selected_action": [str(made.row.pk)]})
    find_key(made.text)
