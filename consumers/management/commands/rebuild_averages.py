"""Make the averages right."""

import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from consumers.rebuild import Progress, RebuildError, Rebuilt, rebuild_averages
from prices.symbols import SYMBOL_ALPHABET, normalise_symbol

LINE_EACH_S = 10.0


class Command(BaseCommand):
    help = (
        "Make the stored averages agree with the stored points, while consumers go on: adds missing rows,"
        " corrects those that differ. Exit 0: done, 1: not all of it (another run goes on), 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a symbol, a time and the form of the answer."""
        parser.add_argument("--symbol", help="Rebuild this symbol alone.")
        parser.add_argument(
            "--since", metavar="TIME", help="Only points made from this time on, in ISO 8601."
        )
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")

    def handle(self, *, symbol: str | None, since: str | None, json: bool, **options: Any) -> None:
        """Rebuild and report. Ctrl-C or SIGTERM ends it after the chunk that it is at."""
        stored_form = normalise_symbol(symbol) if symbol is not None else None
        if symbol is not None and stored_form is None:
            raise CommandError(f"--symbol takes up to 32 of: {SYMBOL_ALPHABET}.", returncode=2)
        moment = _parse_since(since) if since is not None else None
        is_shown = self.stdout.isatty() and sys.stderr.isatty()
        with _stop_signals() as is_stopped, _progress_bar() if is_shown else _progress_lines() as on_progress:
            try:
                rebuilt = rebuild_averages(
                    symbol=stored_form, since=moment, on_progress=on_progress, is_stopped=is_stopped
                )
            except RebuildError as error:
                raise CommandError(f"Not done: {error}. What is written is right; run it again.") from error
        self.stdout.write(_as_json(rebuilt) if json else _as_text(rebuilt))
        if not rebuilt.is_complete:
            raise CommandError("Stopped before the end. What is written is right; run it again for the rest.")


def _parse_since(text: str) -> datetime:
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandError("--since takes a time with its zone, such as 2026-11-23T09:30:00Z.", returncode=2)
    return moment


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


@contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda progress: bar.update(
            task,
            completed=progress.symbols_done,
            total=progress.symbols,
            description=_in_words(progress),
        )


@contextmanager
def _progress_lines() -> Iterator[Callable[[Progress], None]]:
    last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EACH_S:
            last = time.monotonic()
            print(_in_words(progress), file=sys.stderr, flush=True)  # noqa: T201 - not a part of the answer

    yield tell


def _in_words(progress: Progress) -> str:
    return f"{progress.symbols_done:,} of {progress.symbols:,} symbols, {progress.looked_at:,} rows"


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
