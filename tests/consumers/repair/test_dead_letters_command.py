"""manage.py dead_letters, as a person and as a script use it."""

import io
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Message
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from consumers.management import progress
from consumers.reading.decoding import decode_messages
from consumers.repair import dead_letters
from prices.models import DeadLetter
from tests.consumers.running import messages_left, send_parts
from tests.consumers.samples import message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("heartbeats")]
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and gives what it shows."""

    def command(*arguments: object) -> str:
        call_command("dead_letters", *map(str, arguments))
        return capsys.readouterr().out

    return command


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that has the question answered; "" is the end of the input."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def refusal(run: Run, *arguments: object) -> tuple[int, str]:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return caught.value.returncode, text


def add(offset: int = 0, **changes: Any) -> DeadLetter:
    parts: dict[str, Any] = {
        "topic": "price-events",
        "partition": 3,
        "message_timestamp": datetime(2026, 1, 5, 12, tzinfo=UTC),
        "group": "averages",
        "key": b"SIM-A",
        "value": b'{"price": 1}',
        "reason": "the value cannot be read",
    }
    return DeadLetter.objects.create(offset=offset, **parts | changes)


def stored_in_kafka(*poison: Message) -> list[DeadLetter]:
    """Send poison and add the letters of it, as the consumer would."""
    send_parts(*poison)
    parts = {"topic": django_settings.KAFKA_TOPIC, "partition": 0, "headers": [[b"v", b"1"]]}
    return [add(n, key=sent.key(), value=sent.value(), **parts) for n, sent in enumerate(poison)]


def test_list_without_letters_says_so(run: Run) -> None:
    assert run("list") == "No dead letters.\n"


def test_list_shows_where_each_was_and_why(run: Run) -> None:
    letter = add(42)
    words = run("list").split()
    assert words[:6] == ["id", "when", "topic/partition@offset", "key", "reason", "replayed"]
    assert str(letter.id) in words
    assert {"price-events/3@42", "SIM-A"} <= set(words)
    assert "the value cannot be read" in run("list")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"\x1b[2J\0\xff", r"\x1b[2J\x00\xff"),
        (b"k" * 1000, "k" * 23 + "…"),
        ("‮abc".encode(), r"\u202eabc"),
        (b"[red]A", "[red]A"),
        (None, "-"),
    ],
)
def test_list_shows_any_key_printable_and_short(run: Run, key: bytes | None, shown: str) -> None:
    add(key=key)
    assert f" {shown} " in run("list")


def test_list_shows_the_newest_and_how_many_more(run: Run) -> None:
    for number in range(60):
        add(number)
    text = run("list")
    assert "price-events/3@10 " in text
    assert "price-events/3@9 " not in text
    assert text.endswith("and 10 older ones; --limit shows more\n")


def test_list_takes_filters(run: Run) -> None:
    add(1, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    add(2, reason="No Value", created_at=datetime(2026, 1, 2, 12, tzinfo=UTC))
    add(3, topic="other")

    def offsets(*arguments: str) -> list[int]:
        return [each["offset"] for each in json.loads(run("list", "--json", *arguments))]

    assert offsets() == [3, 2, 1]
    assert offsets("--reason", "no value") == [2]
    assert offsets("--since", "2026-01-02") == [3, 2]
    assert offsets("--since", "2026-01-02T13:30:00+01:00") == [3]
    assert offsets("--topic", "other") == [3]
    assert offsets("--limit", "1") == [3]
    assert offsets("--limit", "9" * 30) == offsets()


def test_list_in_json_has_every_field_but_the_value(run: Run) -> None:
    letter = add(7, replayed_at=datetime(2026, 1, 6, tzinfo=UTC))
    (found,) = json.loads(run("list", "--json"))
    assert found["id"] == str(letter.id)
    assert (found["partition"], found["offset"], found["key"], found["value_bytes"]) == (3, 7, "SIM-A", 12)
    assert found["replayed_at"] == "2026-01-06T00:00:00Z"


@pytest.mark.parametrize(
    "arguments",
    [("--since", "yesterday"), ("--limit", "0"), ("--limit", "x"), ("--nonsense",)],
    ids=lambda each: each[0],
)
def test_bad_filter_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run("list", *arguments)


def test_show_tells_everything_with_the_value_as_text(run: Run) -> None:
    text = run("show", add(42).id)
    for part in ("price-events, partition 3, offset 42, of 2026-01-05 12:00:00", "averages", "never"):
        assert part in text
    assert "key, 5 bytes as text:\nSIM-A\n" in text
    assert text.endswith('value, 12 bytes as text:\n{"price": 1}\n')


def test_show_of_bytes_is_hex_and_of_nothing_says_so(run: Run) -> None:
    text = run("show", add(key=None, value=b"\xff\x00").id)
    assert "key: none" in text
    assert text.endswith("value, 2 bytes as hex:\nff00\n")


def test_show_shortens_unless_the_whole_is_asked_for(run: Run) -> None:
    letter = add(value=b"v" * 5000 + b"end")
    assert "end" not in run("show", letter.id).split()[-1]
    assert "--whole shows all" in run("show", letter.id)
    assert run("show", letter.id, "--whole").endswith("vend\n")


def test_show_keeps_the_terminal_from_acting_on_the_value(run: Run) -> None:
    text = run("show", add(value=b"a\x1b[2Jb\nc").id)
    assert "\x1b" not in text
    assert text.endswith("a\\x1b[2Jb\nc\n")


@pytest.mark.parametrize("action", ["show", "replay", "discard"])
def test_unknown_id_fails_and_changes_nothing(run: Run, action: str) -> None:
    known, unknown = add().id, uuid.uuid4()
    ids = [unknown] if action == "show" else [known, unknown]
    assert refusal(run, action, *ids) == (1, f"No dead letter has the id {unknown}.")
    assert DeadLetter.objects.filter(replayed_at=None).count() == 1


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_neither_ids_nor_all_or_both_is_wrong_usage(run: Run, action: str) -> None:
    letter = add()
    assert refusal(run, action) == (2, "Give ids, or --all.")
    assert refusal(run, action, letter.id, "--all") == (2, "Give ids, or --all.")
    assert refusal(run, action, letter.id, "--topic", "t") == (2, "Filters go with --all, not with ids.")


@pytest.mark.usefixtures("topic")
def test_replay_of_ids_asks_nothing_and_is_noted(run: Run) -> None:
    letters = stored_in_kafka(message(value=b"{"), message(value=b"["))
    assert run("replay", *(letter.id for letter in letters)) == "2 replayed\n"
    assert DeadLetter.objects.filter(replayed_at=None).count() == 0
    assert messages_left(wait_s=0) == 4
    assert run("replay", letters[0].id) == "0 replayed, 1 skipped: replayed before\n"
    assert messages_left(wait_s=0) == 4


@pytest.mark.usefixtures("topic")
def test_replay_of_all_that_fit_asks_first(run: Run, answer: Callable[[str], None]) -> None:
    first, second = stored_in_kafka(message(value=b"{"), message(value=b"["))
    DeadLetter.objects.filter(id=first.id).update(reason="another")
    answer("n\n")
    assert refusal(run, "replay", "--all") == (1, "Nothing was done.")
    answer("")
    assert refusal(run, "replay", "--all") == (2, "Nobody can be asked here: give --yes.")
    assert messages_left(wait_s=0) == 2
    answer("y\n")
    shown = run("replay", "--all", "--reason", "ANO")
    assert "Send 1 dead letter to the topic again? [y/N] 1 replayed" in shown
    assert run("replay", "--all", "--yes") == "1 replayed\n"
    assert run("replay", "--all") == "0 replayed\n"
    second.refresh_from_db()
    assert second.replayed_at is not None


@pytest.mark.usefixtures("topic")
def test_replay_that_leaves_some_fails_and_names_them(run: Run) -> None:
    (there,) = stored_in_kafka(message(value=b"{"))
    gone = add(99, topic=there.topic, headers=None)
    code, text = refusal(run, "replay", "--all", "--yes")
    assert code == 1
    assert text.startswith(f"1 not replayed. {gone.id}: its headers are not known")


def test_replay_while_kafka_is_away_fails_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "ANSWER_TIMEOUT_S", 0.3)
    letter = add()
    with override_settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"):
        code, text = refusal(run, "replay", letter.id)
    assert (code, text.partition(":")[0]) == (1, "Kafka")


def test_postgresql_away_fails_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        code, text = refusal(run, "list")
    assert (code, text.partition(":")[0]) == (1, "PostgreSQL")


def test_discard_asks_and_deletes(run: Run, answer: Callable[[str], None]) -> None:
    letters = [add(number, reason=f"reason {number}") for number in range(4)]
    answer("no\n")
    assert refusal(run, "discard", letters[0].id) == (1, "Nothing was done.")
    assert DeadLetter.objects.count() == 4
    answer("yes\n")
    assert run("discard", letters[0].id).endswith("1 deleted\n")
    assert run("discard", "--all", "--reason", "reason 2", "--yes") == "1 deleted\n"
    assert run("discard", "--all", "--limit", "1", "--yes") == "1 deleted\n"
    assert list(DeadLetter.objects.values_list("offset", flat=True)) == [1]


def test_discard_of_replayed_ones_leaves_the_open(run: Run) -> None:
    add(1, replayed_at=datetime(2026, 1, 6, tzinfo=UTC))
    letter = add(2)
    assert run("discard", "--all", "--replayed", "--yes") == "1 deleted\n"
    assert DeadLetter.objects.get() == letter
    assert refusal(run, "discard", letter.id, "--replayed")[0] == 2


def test_show_tells_the_headers(run: Run) -> None:
    assert "headers: not known" in run("show", add(1).id)
    assert "headers: none" in run("show", add(2, headers=[]).id)
    shown = run("show", add(3, headers=[[b"v", b"2"], [b"v\x1b", b"\xff"], [b"w", None]]).id)
    assert "headers:\nv: 2\nv\\x1b: \\xff\nw: none\n" in shown


def test_progress_is_told_while_it_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EACH_S", 0.0)
    add(1)
    call_command("dead_letters", "discard", "--all", "--yes")
    assert capsys.readouterr().err == "1 deleted\n"


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("dead_letters", "--help")
    assert "manage.py dead_letters replay --all" in capsys.readouterr().out


def test_what_the_consumer_refuses_is_shown_as_it_came(run: Run) -> None:
    (letter,) = decode_messages([message(5, value=b'{"event_id": 1}')]).dead_letters
    letter.save()
    text = run("show", DeadLetter.objects.get().id)
    assert letter.reason in text
    assert '{"event_id": 1}' in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("show", "99"), "argument ID: '99' is not a whole id: `dead_letters list` shows them"),
        (
            ("list", "--since", "yesterday"),
            "argument --since: 'yesterday' is not a time such as 2026-11-23T14:30",
        ),
        (("list", "--limit", "0"), "argument --limit: '0' is not a whole number above 0"),
        (("list", "--limit", "ten"), "argument --limit: 'ten' is not a whole number above 0"),
    ],
)
def test_refusal_says_what_is_taken(run: Run, arguments: tuple[str, ...], told: str) -> None:
    assert told in refusal(run, *arguments)[1]
