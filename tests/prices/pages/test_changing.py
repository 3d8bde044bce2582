"""Who may change something from a page."""

import socket

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.test import RequestFactory
from pytest_django import Settings

from prices.pages import changing, listening
from prices.pages.changing import may_change

OWN_NAMES = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"]


@pytest.fixture
def listens_at(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> set[str]:
    """Return the addresses at which the process is said to listen; the names are this machine's own."""
    hosts = {"127.0.0.1"}
    monkeypatch.setattr(listening, "listening_hosts", lambda: hosts)
    settings.ALLOWED_HOSTS = OWN_NAMES
    return hosts


def asks(user: User | AnonymousUser, **headers: str) -> bool:
    request = RequestFactory().get("/pages/jobs", headers=headers)
    request.user = user
    return may_change(request)


def user_of(kind: str) -> User | AnonymousUser:
    if kind == "nobody":
        return AnonymousUser()
    user = User.objects.create(username=kind, is_staff=kind != "no staff", is_active=kind != "switched off")
    if kind != "viewer":
        user.user_permissions.add(Permission.objects.get(codename="change_polljob"))
    return user


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["nobody", "viewer", "manager", "no staff", "switched off"])
@pytest.mark.parametrize("hosts", [{"127.0.0.1"}, {"0.0.0.0"}])
@pytest.mark.parametrize("names", [OWN_NAMES, ["localhost", "prices.example.com"]])
@pytest.mark.parametrize("auth", ["open", "keys"])
def test_who_may_change(
    kind: str, hosts: set[str], names: list[str], auth: str, listens_at: set[str], settings: Settings
) -> None:
    listens_at.clear()
    listens_at.update(hosts)
    settings.ALLOWED_HOSTS, settings.API_AUTH = names, auth
    is_own = auth == "open" and hosts == {"127.0.0.1"} and names == OWN_NAMES
    assert asks(user_of(kind)) == (is_own or kind == "manager")


@pytest.mark.parametrize(
    ("hosts", "is_own"),
    [
        ({"127.0.0.1"}, True),
        ({"127.0.0.53", "::1"}, True),
        (set(), False),
        ({"0.0.0.0"}, False),
        ({"::"}, False),
        ({"127.0.0.1", "192.0.2.1"}, False),
        ({"AF_UNIX"}, False),
    ],
)
def test_where_the_process_listens_decides(hosts: set[str], is_own: bool, listens_at: set[str]) -> None:
    listens_at.clear()
    listens_at.update(hosts)
    assert changing.is_for_this_machine_only() == is_own


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("LOCALHOST", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("0.0.0.0", True),
        ("*", False),
        (".localhost.example.com", False),
        ("192.0.2.1", False),
        ("[::]", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_names_decide(name: str, is_own: bool, listens_at: set[str], settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["localhost", name]
    assert changing.is_for_this_machine_only() == is_own


def test_address_of_the_client_decides_nothing(listens_at: set[str]) -> None:
    listens_at.add("0.0.0.0")
    assert not asks(AnonymousUser(), X_Forwarded_For="127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_sockets_tell_where_the_process_listens(host: str) -> None:
    before = listening.listening_hosts()
    with socket.create_server((host, 0)) as server:
        assert listening.listening_hosts() == before | {host}
        with socket.create_connection(("127.0.0.1", server.getsockname()[1])):
            assert listening.listening_hosts() == before | {host}
        assert server.getsockname()
    assert listening.listening_hosts() == before
