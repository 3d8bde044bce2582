"""Make the averages right."""

import signal
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from consumers.management.arguments import parse_since, parse_symbol
from consumers.management.progress import shown_progress
from consumers.repair.rebuild import RebuildError, Rebuilt, rebuild_averages
from prices.management.examples import add_examples

EXAMPLES = (
    "rebuild_averages",
    "rebuild_averages --symbol AAPL --since 2026-11-23T09:30:00Z",
)


class Command(BaseCommand):
    help = (
        "Make the stored averages agree with the stored points, while consumers go on: adds missing rows,"
        " corrects those that differ. Exit 0: done, 1: not all of it (another run goes on), 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a symbol, a time and the form of the answer."""
        add_examples(parser, *EXAMPLES)
        parser.add_argument("--symbol", help="Rebuild this symbol alone.")
        parser.add_argument(
            "--since", metavar="TIME", help="Only points made from this time on, in ISO 8601."
        )
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")

    def handle(self, *, symbol: str | None, since: str | None, json: bool, **options: Any) -> None:
        """Rebuild and report. Ctrl-C or SIGTERM ends it after the chunk that it is at."""
        stored_form, moment = parse_symbol(symbol), parse_since(since)
        with _stop_signals() as is_stopped, shown_progress() as show:
            try:
                rebuilt = rebuild_averages(
                    symbol=stored_form,
                    since=moment,
                    on_progress=lambda done: show(done.symbols_done, done.symbols, str(done)),
                    is_stopped=is_stopped,
                )
            except RebuildError as error:
                raise CommandError(f"Not done: {error}. What is written is right; run it again.") from error
        self.stdout.write(_as_json(rebuilt) if json else _as_text(rebuilt))
        if not rebuilt.is_complete:
            raise CommandError("Stopped before the end. What is written is right; run it again for the rest.")


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Take Ctrl-C and SIGTERM, and tell whether one has come."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = [signal.signal(number, lambda *_: came.append(1)) for number in numbers]
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)


def _counts(rebuilt: Rebuilt) -> dict[str, int]:
    return {
        "looked_at": rebuilt.looked_at,
        "inserted": rebuilt.inserted,
        "corrected": rebuilt.corrected,
        "unchanged": rebuilt.unchanged,
    }


def _as_json(rebuilt: Rebuilt) -> str:
    rest = {
        "complete": rebuilt.is_complete,
        "chunks": rebuilt.chunks,
        "longest_chunk_ms": round(rebuilt.longest_s * 1000),
    }
    return msgspec.json.encode(_counts(rebuilt) | rest).decode()


def _as_text(rebuilt: Rebuilt) -> str:
    lines = [f"{name.replace('_', ' '):<13}{count:>12,}" for name, count in _counts(rebuilt).items()]
    longest_ms = rebuilt.longest_s * 1000
    return "\n".join(
        [*lines, "", f"{rebuilt.chunks:,} chunks; the longest held its locks for {longest_ms:.0f} ms."]
    )
