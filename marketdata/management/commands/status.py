"""manage.py status: is the service well?"""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from consumers.reading.lag import PartitionLag
from marketdata.status import Status, Stored, read_status
from prices.management.examples import add_examples


class Command(BaseCommand):
    help = (
        "Show the parts, jobs, the beat that leads, polls, outbox, averages, dead letters and the consumer's"
        " lag. Exit 0: all is well, 1: something is not right (it is named), 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the form of the answer."""
        add_examples(parser, "status", "status --json")
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")

    def handle(self, *, json: bool, **options: Any) -> None:
        """Look and report."""
        status = read_status()
        if json:
            self.stdout.write(msgspec.json.encode(_plain(status)).decode())
        else:
            self.stdout.write("\n".join(_lines(status)))
        if status.problems:
            raise CommandError(f"Not right: {'; '.join(status.problems)}.")


def _plain(status: Status) -> dict[str, Any]:
    stored = status.stored
    return {
        "ok": not status.problems,
        "problems": status.problems,
        "notes": status.notes,
        "parts": {part.name: part.problem or "ok" for part in status.parts},
        "jobs": None if stored is None else stored.jobs,
        "beat": None if stored is None or stored.last_lead is None else _plain_beat(status, stored),
        "open_runs": None if stored is None else stored.open_runs,
        "outbox": None if stored is None else _plain_outbox(status, stored),
        "last_average": None
        if stored is None or stored.last_average is None
        else _plain_last(status, stored),
        "dead_letters": None if stored is None else stored.open_dead_letters,
        "unpartitioned": None if stored is None else stored.unpartitioned,
        "missed_slots": None if stored is None else stored.missed_slots,
        "consumer": None if status.lag is None else _plain_consumer(status, status.lag),
    }


def _plain_beat(status: Status, stored: Stored) -> dict[str, Any]:
    return {"leader": stored.leader, "led_until": stored.last_lead, "age_s": status.age_s(stored.last_lead)}


def _plain_outbox(status: Status, stored: Stored) -> dict[str, Any]:
    return {"points": stored.pending_points, "oldest_age_s": status.age_s(stored.oldest_pending)}


def _plain_last(status: Status, stored: Stored) -> dict[str, Any] | None:
    if stored.last_average is None:
        return None
    return {"created_at": stored.last_average, "age_s": status.age_s(stored.last_average)}


def _plain_consumer(status: Status, lag: Sequence[PartitionLag]) -> dict[str, Any]:
    return {
        "group": settings.KAFKA_CONSUMER_GROUP,
        "topic": settings.KAFKA_TOPIC,
        "lag": status.messages_behind,
        "partitions": [
            {"partition": each.partition, "committed": each.committed, "end": each.end, "lag": each.messages}
            for each in lag
        ],
    }


def _lines(status: Status) -> Iterator[str]:
    for part in status.parts:
        yield f"{part.name:<13} {part.problem or 'ok'}"
    if status.stored is not None:
        yield ""
        yield from _stored_lines(status, status.stored)
    if status.lag is not None:
        yield ""
        yield from _lag_lines(status, status.lag)
    if status.notes:
        yield ""
        yield from (f"note: {note}" for note in status.notes)


def _stored_lines(status: Status, stored: Stored) -> Iterator[str]:
    jobs = ", ".join(f"{count:,} {name}" for name, count in stored.jobs.items())
    oldest = (
        "" if stored.oldest_pending is None else f", the oldest {status.age_s(stored.oldest_pending)} s old"
    )
    last = "none" if stored.last_average is None else f"{status.age_s(stored.last_average)} s old"
    age_s = status.age_s(stored.last_lead)
    leads = "none led yet" if age_s is None else f"{stored.leader} led {_ago(age_s)}"
    yield f"jobs          {jobs}"
    yield f"beat          {leads}"
    yield f"open polls    {stored.open_runs:,}"
    yield f"outbox        {stored.pending_points:,} points{oldest}"
    yield f"last average  {last}"
    yield f"dead letters  {stored.open_dead_letters:,} not replayed"
    missed = ", ".join(f"{slots:,} {reason}" for reason, slots in stored.missed_slots.items())
    yield f"not polled    {missed or 'none'} in the last 24 hours"
    for table, (first_day, last_day) in stored.unpartitioned.items():
        yield f"unpartitioned {table}: rows of {first_day} to {last_day} lie in no partition of their time"


def _ago(age_s: float) -> str:
    return f"{age_s} s ago" if age_s >= 0 else f"by a clock that was {-age_s} s ahead"


def _lag_lines(status: Status, lag: Sequence[PartitionLag]) -> Iterator[str]:
    yield f"consumer      group {settings.KAFKA_CONSUMER_GROUP}, {status.messages_behind:,} messages behind"
    yield f"{'partition':>9} {'committed':>12} {'end':>12} {'lag':>12}"
    for each in lag:
        committed = "-" if each.committed is None else f"{each.committed:,}"
        yield f"{each.partition:>9} {committed:>12} {each.end:>12,} {each.messages:>12,}"
