"""The page of the system: what `manage.py status` says, for people."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from django.db import connection
from django.http import HttpRequest
from django.utils import timezone

from marketdata.health import check_parts
from marketdata.status import Status, Stored, read_status
from prices.access.rights import Access
from prices.pages.page import Shown, page

# Many tabs ask once in this time.
KEPT_S = 2.0
# Kafka may take longer than a reader waits.
MOST_S = 5.0

WELL = {
    "postgresql": "Answers.",
    "migrations": "All are applied.",
    "partitions": "Made ahead, for each table that needs them.",
    "redis": "Answers each command that the service uses.",
    "kafka": "Answers, and has the topic.",
    "stream": "No open transaction holds it back.",
    "processes": "None that was started here stays down.",
    "clocks": "Agree with PostgreSQL's.",
}

# What cannot be told without PostgreSQL.
STORED_ROWS = ("jobs", "beat", "polls", "outbox", "last average", "dead letters")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the page: `figure` is what is counted, and `problems` what is not right."""

    name: str
    figure: str
    problems: list[str]
    moment: datetime | None = None
    is_known: bool = True


@page
def system(request: HttpRequest, access: Access) -> Shown:
    """Show how each part is, what waits, and how old the newest is."""
    status = _shared().read()
    return "pages/system.html", {
        "status": status,
        "rows": [*_part_rows(status), *_work_rows(status)],
        "lag": status.lag,
        "missed": None if status.stored is None else status.stored.missed_slots,
    }


def _part_rows(status: Status) -> Iterator[Row]:
    away = {part.name for part in status.parts if part.problem}
    for part in status.parts:
        problems = [part.problem] if part.problem else []
        # The check is silent where there is nothing to compare with.
        is_known = part.name != "clocks" or bool(problems) or not away & {"postgresql", "redis"}
        yield Row(part.name, WELL[part.name], problems, is_known=is_known)


def _work_rows(status: Status) -> Iterator[Row]:
    stored, behind = status.stored, status.messages_behind
    figures = dict.fromkeys(STORED_ROWS) if stored is None else _stored_figures(stored)
    for name, figure in figures.items():
        text, moment = figure or ("", None)
        yield Row(name, text, _problems_of(status, name), moment, is_known=figure is not None)
    figure_behind = "" if behind is None else f"{behind:,} messages behind"
    yield Row("consumer", figure_behind, _problems_of(status, "consumer"), is_known=behind is not None)
    # Told only where they are not right.
    for name in ("topic", "clock"):
        if problems := _problems_of(status, name):
            yield Row(name, "", problems)


def _stored_figures(stored: Stored) -> dict[str, tuple[str, datetime | None] | None]:
    jobs = ", ".join(f"{count:,} {name}" for name, count in stored.jobs.items())
    leader = f"{stored.leader} led last" if stored.last_lead else "None led yet"
    runs = f"{stored.open_runs:,} open" + (", the oldest since" if stored.oldest_run else "")
    points = f"{stored.pending_points:,} waiting" + (", the oldest since" if stored.oldest_pending else "")
    average = "Stored" if stored.last_average else "None yet"
    return {
        "jobs": (jobs, None),
        "beat": (leader, stored.last_lead),
        "polls": (runs, stored.oldest_run),
        "outbox": (points, stored.oldest_pending),
        "last average": (average, stored.last_average),
        "dead letters": (f"{stored.open_dead_letters:,} not replayed", None),
    }


def _problems_of(status: Status, name: str) -> list[str]:
    found = (problem.partition(": ") for problem in status.problems)
    return [text for about, _, text in found if about == name]


class _SharedStatus:
    """One look at a time, for all who ask; what it found is kept for KEPT_S."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._lock = threading.Lock()
        self._look: Future[Status] | None = None
        self._ended_at = 0.0

    def read(self) -> Status:
        with self._lock:
            look = self._look
            if look is None or (look.done() and time.monotonic() - self._ended_at > KEPT_S):
                look = self._look = self._pool.submit(self._read)
        try:
            return look.result(timeout=MOST_S)
        except FutureTimeoutError:
            return _without_figures()

    def _read(self) -> Status:
        try:
            return read_status()
        finally:
            connection.close()
            self._ended_at = time.monotonic()


def _without_figures() -> Status:
    parts = check_parts()
    problems = [f"{part.name}: {part.problem}" for part in parts if part.problem]
    problems.append(f"status: not all could be read within {MOST_S:g} s")
    return Status(timezone.now(), parts, None, None, problems, [])


@cache
def _shared() -> _SharedStatus:
    return _SharedStatus()


def forget_status() -> None:
    """Look anew at the next request."""
    _shared.cache_clear()
