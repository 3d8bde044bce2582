"""manage.py api_key, as a person and as a script use it."""

import json
from collections.abc import Callable

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from prices.access.keys import InvalidKeyError, find_key
from prices.models import ApiClient, ApiKey

pytestmark = pytest.mark.django_db
Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and gives what it shows, and what it says besides."""

    def command(*arguments: str) -> tuple[str, str]:
        call_command("api_key", *arguments)
        shown = capsys.readouterr()
        return shown.out, shown.err

    return command


def refusal(run: Run, *arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert ApiKey.objects.count() == 0
    return str(caught.value)


def test_created_key_is_all_that_a_script_reads(run: Run, settings: Settings) -> None:
    settings.API_AUTH = "keys"
    out, err = run("create", "dashboard")
    found = find_key(out.removesuffix("\n"))
    assert found.access.client_id == ApiClient.objects.get(name="dashboard").id
    assert err == (
        "A key of the new client dashboard, for read, with no end. It is shown this once: keep it now.\n"
    )
    assert "the client dashboard, for read, jobs," in run("create", "dashboard", "--scopes", "read,jobs")[1]


def test_key_of_an_open_service_says_that_nobody_asks_for_it(run: Run) -> None:
    assert run("create", "dashboard")[1].endswith("API_AUTH is open. Set API_AUTH=keys.\n")


def test_end_is_days_from_now_or_a_date(run: Run) -> None:
    run("create", "one", "--expires", "90d")
    run("create", "two", "--expires", "2999-12-31")
    one, two = ApiKey.objects.order_by("id")
    assert round((one.expires_at - one.created_at).total_seconds()) == 90 * 86_400  # type: ignore[operator]
    assert f"{two.expires_at:%Y-%m-%d %H:%M}" == "2999-12-31 00:00"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["", "--scopes", "read"], "a name has 1 to 100 printable characters"),
        (["x" * 101], "a name has 1 to 100 printable characters"),
        (["x\ny"], "a name has 1 to 100 printable characters"),
        (
            ["x", "--scopes", "read,write"],
            "is not one or more of read, jobs, ingest, admin, with commas between",
        ),
        (["x", "--scopes", ""], "is not one or more of read, jobs, ingest, admin, with commas between"),
        (["x", "--expires", "90"], "is neither days such as 90d nor a date such as 2027-01-31"),
        (["x", "--expires", "0d"], "is neither days such as 90d nor a date such as 2027-01-31"),
        (["x", "--expires", "2027-02-30"], "is neither days such as 90d nor a date such as 2027-01-31"),
        (["x", "--expires", "2020-01-01"], "--expires: is in the past."),
    ],
)
def test_what_cannot_be_used_is_refused(run: Run, arguments: list[str], told: str) -> None:
    assert told in refusal(run, "create", *arguments)


def test_list_shows_every_key_and_none_of_them(run: Run) -> None:
    assert run("list")[0] == "No keys.\n"
    texts = [run("create", *arguments)[0] for arguments in (["b"], ["a", "--expires", "2999-12-31"])]
    a, b = ApiKey.objects.order_by("client__name")
    run("revoke", b.prefix)
    shown = run("list")[0]
    _head, first, second = (line.split() for line in shown.splitlines())
    assert first[:5] == ["a", a.prefix, "read", "until", "2999-12-31"]
    assert second[:4] == ["b", b.prefix, "read", "revoked"]
    as_json = json.loads(run("list", "--json")[0])
    assert [each["prefix"] for each in as_json] == [a.prefix, b.prefix]
    assert as_json[0]["expires_at"] == "2999-12-31T00:00:00Z"
    assert not any(text.strip() in shown + json.dumps(as_json) for text in texts)


def test_revoked_keys_open_nothing(run: Run) -> None:
    text = run("create", "dashboard")[0].strip()
    prefix = ApiKey.objects.get().prefix
    with pytest.raises(CommandError) as caught:
        run("revoke", prefix, prefix[:8])
    assert str(caught.value) == (
        f"There is no key {prefix[:8]}. Nothing was revoked. Name each key by its first 16 characters, as"
        " `api_key list` shows them."
    )
    find_key(text)
    assert run("revoke", prefix)[0].startswith(f"{prefix}  revoked at ")
    with pytest.raises(InvalidKeyError):
        find_key(text)


def test_whole_key_is_taken_for_its_beginning(run: Run) -> None:
    """Who holds the key and nothing else can still end it, and it is not shown again."""
    text = run("create", "dashboard")[0].strip()
    out, _err = run("revoke", text)
    assert text not in out
    with pytest.raises(InvalidKeyError):
        find_key(text)
