"""manage.py dead_letters: what the consumer could not read, to look at, send again or delete."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import replace as changed
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from confluent_kafka import KafkaException
from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.db.models import QuerySet
from rich.console import Console
from rich.table import Table

from consumers.management.progress import shown_progress
from consumers.reading.decoding import StoredHeaders
from consumers.repair.dead_letters import (
    Filter,
    Replay,
    Summary,
    UnknownLettersError,
    discard,
    matching,
    replay,
    select,
    summaries,
    with_ids,
)
from prices.management.arguments import positive
from prices.management.examples import add_examples
from prices.models import DeadLetter

LISTED = 50
SHOWN_BYTES = 2_000
SHOWN_KEY = 24
# Wide enough for the table, where output goes to a file.
WIDTH = 160


EXAMPLES = (
    "dead_letters list --reason version",
    "dead_letters replay --all --reason version --since 2026-11-23T14:30",
    "dead_letters discard --all --replayed --yes",
)


class Command(BaseCommand):
    help = (
        "List, show, replay or discard the messages that the consumer could not read."
        " Exit 0: done, 1: failed, or not all was done, 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do, and with which."""
        add_examples(parser, *EXAMPLES)
        actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|replay|discard")
        listing = actions.add_parser("list", help="Show the newest in a table.")
        _add_filters(listing, limit=LISTED)
        listing.add_argument("--json", action="store_true", help="Answer in JSON.")
        showing = actions.add_parser("show", help="Show all of one.")
        showing.add_argument("letter_id", type=_uuid, metavar="ID")
        showing.add_argument("--whole", action="store_true", help="Do not shorten the key and the value.")
        for name, done in (("replay", "Send to the topic again"), ("discard", "Delete")):
            changing = actions.add_parser(name, help=f"{done} these, or all that fit.")
            changing.add_argument("ids", nargs="*", type=_uuid, metavar="ID")
            changing.add_argument("--all", action="store_true", help="All that fit the filters.")
            changing.add_argument("--yes", action="store_true", help="Do not ask.")
            _add_filters(changing, limit=None)
            if name == "discard":
                changing.add_argument(
                    "--replayed", action="store_true", help="Only those that were replayed."
                )

    def handle(self, *, action: str, **options: Any) -> None:
        """Do it."""
        try:
            getattr(self, f"_{action}")(**options)
        except UnknownLettersError as error:
            raise CommandError(str(error)) from error
        except KafkaException as error:
            raise CommandError(f"Kafka: {error.args[0].str()}") from error
        except Error as error:
            raise CommandError(f"PostgreSQL: {str(error).partition(chr(10))[0]}") from error

    def _list(self, *, json: bool, **options: Any) -> None:
        wanted = _filter(options)
        found = summaries(wanted)
        if json:
            self.stdout.write(msgspec.json.encode([_plain(each) for each in found]).decode())
            return
        if not found:
            self.stdout.write("No dead letters.")
            return
        width = None if self.stdout.isatty() else WIDTH
        console = Console(file=self.stdout, width=width, markup=False, highlight=False, emoji=False)  # type: ignore[arg-type]  # has all that rich calls
        console.print(_table(found))
        left = matching(changed(wanted, limit=None)).count() - len(found)
        if left > 0:
            console.print(f"and {left:,} older ones; --limit shows more")

    def _show(self, *, letter_id: UUID, whole: bool, **options: Any) -> None:
        letter = with_ids([letter_id]).get()
        replayed = "never" if letter.replayed_at is None else _time(letter.replayed_at)
        lines = [
            f"id         {letter.id}",
            f"when       {_time(letter.created_at)}",
            f"message    {printable(letter.topic)}, partition {letter.partition}, offset {letter.offset},"
            f" of {_time(letter.message_timestamp)}",
            f"group      {printable(letter.group)}",
            f"reason     {printable(letter.reason)}",
            f"replayed   {replayed}",
        ]
        most = None if whole else SHOWN_BYTES
        lines += ["", *_header_lines(letter.headers, most=most)]
        for name, value in (("key", letter.key), ("value", letter.value)):
            lines += ["", *_in_full(name, value, most=most)]
        self.stdout.write("\n".join(lines))

    def _replay(self, **options: Any) -> None:
        letters, count = _chosen(options, is_replayed=False)
        if options["all"] and not options["yes"] and count:
            _confirm(f"Send {_count(count)} to the topic again?")
        with shown_progress() as show:
            result = replay(
                letters, on_progress=lambda done: show(done.done, count, f"{done.sent:,} replayed")
            )
        self.stdout.write(_in_words(result))
        if result.failed:
            raise CommandError(_failures(result))

    def _discard(self, **options: Any) -> None:
        letters, count = _chosen(options, is_replayed=True if options["replayed"] else None)
        if not options["yes"] and count:
            _confirm(f"Delete {_count(count)} for good?")
        with shown_progress() as show:
            deleted = discard(letters, on_progress=lambda done: show(done, count, f"{done:,} deleted"))
        self.stdout.write(f"{deleted:,} deleted")


def printable(text: str) -> str:
    """Return the text with whatever a terminal would act on written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _add_filters(parser: ArgumentParser, *, limit: int | None) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="The reason holds this, in any case.")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="As 2026-11-23T14:30, in UTC.")
    parser.add_argument("--topic", help="This topic alone.")
    text = f"The newest so many. Without it: {'all' if limit is None else limit}."
    parser.add_argument("--limit", type=positive, default=limit, help=text)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a whole id: `dead_letters list` shows them") from error


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a time such as 2026-11-23T14:30") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _filter(options: dict[str, Any], *, is_replayed: bool | None = None) -> Filter:
    return Filter(options["reason"], options["since"], options["topic"], options["limit"], is_replayed)


def _chosen(options: dict[str, Any], *, is_replayed: bool | None) -> tuple[QuerySet[DeadLetter], int]:
    """Return the letters that are meant, and how many there are."""
    ids, is_filtered = options["ids"], _filter(options) != Filter() or options.get("replayed")
    if bool(ids) == options["all"]:
        raise CommandError("Give ids, or --all.", returncode=2)
    if ids and is_filtered:
        raise CommandError("Filters go with --all, not with ids.", returncode=2)
    letters = with_ids(ids) if ids else select(_filter(options, is_replayed=is_replayed))
    return letters, letters.count()


def _confirm(question: str) -> None:
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError as error:
        raise CommandError("Nobody can be asked here: give --yes.", returncode=2) from error
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("Nothing was done.")


def _count(letters: int) -> str:
    return f"{letters:,} dead letter{'s' * (letters != 1)}"


def _in_words(result: Replay) -> str:
    skipped = f", {result.skipped:,} skipped: replayed before" if result.skipped else ""
    return f"{result.sent:,} replayed{skipped}"


def _failures(result: Replay) -> str:
    named = "; ".join(f"{letter}: {reason}" for letter, reason in result.failures)
    left = result.failed - len(result.failures)
    return f"{result.failed:,} not replayed. {named}{f'; and {left:,} more' if left > 0 else ''}"


def _table(found: Sequence[Summary]) -> Table:
    table = Table(box=None, pad_edge=False)
    # Whole, so that it can be copied.
    table.add_column("id", min_width=36, no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("topic/partition@offset", overflow="fold")
    table.add_column("key", no_wrap=True)
    table.add_column("reason", overflow="fold", ratio=1)
    table.add_column("replayed", no_wrap=True)
    for each in found:
        letter = each.letter
        position = f"{printable(letter.topic)}/{letter.partition}@{letter.offset}"
        replayed = "" if letter.replayed_at is None else _time(letter.replayed_at)
        cells = (_time(letter.created_at), position, _short_key(each), printable(letter.reason), replayed)
        table.add_row(str(letter.id), *cells)
    return table


def _short_key(summary: Summary) -> str:
    if summary.key is None:
        return "-"
    text = printable(summary.key.decode(errors="backslashreplace"))
    is_whole = len(text) <= SHOWN_KEY and summary.key_bytes == len(summary.key)
    return text if is_whole else f"{text[: SHOWN_KEY - 1]}…"


def _plain(summary: Summary) -> dict[str, Any]:
    letter = summary.letter
    return {
        "id": letter.id,
        "created_at": letter.created_at,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "message_timestamp": letter.message_timestamp,
        "group": letter.group,
        "key": None if summary.key is None else _short_key(summary),
        "key_bytes": summary.key_bytes,
        "value_bytes": summary.value_bytes,
        "reason": letter.reason,
        "replayed_at": letter.replayed_at,
    }


def _header_lines(headers: StoredHeaders | None, *, most: int | None) -> list[str]:
    if headers is None:
        return ["headers: not known"]
    if not headers:
        return ["headers: none"]
    return ["headers:", *(f"{_short(name, most)}: {_short(value, most)}" for name, value in headers)]


def _short(part: bytes | memoryview | None, most: int | None) -> str:
    return "none" if part is None else printable(bytes(part).decode(errors="backslashreplace")[:most])


def _in_full(name: str, value: bytes | memoryview | None, *, most: int | None) -> list[str]:
    if value is None:
        return [f"{name}: none"]
    raw = bytes(value)
    try:
        text, form = raw.decode(), "text"
        shown = "\n".join(map(printable, text[:most].split("\n")))
        is_short = most is None or len(text) <= most
    except UnicodeDecodeError:
        form, shown, is_short = "hex", raw[:most].hex(), most is None or len(raw) <= most
    lines = [f"{name}, {len(raw):,} bytes as {form}:", shown]
    return lines if is_short else [*lines, "… shortened; --whole shows all"]


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
