"""manage.py jobs: what is polled and how it went; pause, resume and stop."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from prices.api import responses as answers
from prices.clock import database_now
from prices.jobs.listing import select_jobs
from prices.jobs.lookup import JobChoiceError, find_jobs, short_ids
from prices.jobs.services import JobStoppedError, pause_job, resume_job, stop_job, wait_for_started_fetches
from prices.ledger.reports import DAY, count_last_day, missed_slots, runs_of
from prices.management.arguments import positive
from prices.management.examples import add_examples
from prices.management.tables import (
    blocked_table,
    console_on,
    detail_table,
    job_table,
    missed_table,
    run_table,
)
from prices.models import JobStatus, PollJob
from prices.quota import all_blockers, plan_of_active
from providers.registry import UnknownProviderError, normalise_name

LISTED = 50
SHOWN_ROWS = 10
IDS = "Its id, or the first 8 or more characters where no other job's begins so."
CHANGES: dict[str, Callable[[UUID], PollJob]] = {
    "pause": partial(pause_job, waits=False),
    "resume": resume_job,
    "stop": partial(stop_job, waits=False),
}


class Command(BaseCommand):
    help = (
        "List and show jobs, pause and resume them, or stop them for good. An id may be shortened to its"
        " first 8 or more characters where no other job's begins so. Of several ids either all are right, or"
        " nothing is changed. Exit 0: done, 1: an id is wrong, or its job was stopped for good before,"
        " 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do, and with which."""
        add_examples(parser, "jobs list --status paused", "jobs show 01a20694", "jobs stop 01a20694 01a206a1")
        actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|pause|resume|stop")
        listing = actions.add_parser("list", help="Show the newest in a table.")
        listing.add_argument("--status", choices=JobStatus.values)
        listing.add_argument("--provider", help="Those that name it, and those that it served last.")
        listing.add_argument(
            "--limit", type=positive, default=LISTED, help=f"The newest so many. Without it: {LISTED}."
        )
        listing.add_argument("--json", action="store_true", help="Answer in JSON.")
        showing = actions.add_parser("show", help="Show all of one, its last polls, and what was not polled.")
        showing.add_argument("id", metavar="ID", help=IDS)
        showing.add_argument("--json", action="store_true", help="Answer in JSON.")
        for name, done in (
            ("pause", "Do not poll these until they are resumed."),
            ("resume", "Poll these again."),
            ("stop", "End these for good."),
        ):
            changing = actions.add_parser(name, help=done)
            changing.add_argument("ids", nargs="+", metavar="ID", help=IDS)

    def handle(self, *, action: str, **options: Any) -> None:
        """Do it."""
        try:
            if action in CHANGES:
                self._change(action, options["ids"])
            else:
                getattr(self, f"_{action}")(**options)
        except JobChoiceError as error:
            nothing = " Nothing was changed." if action in CHANGES else ""
            raise CommandError(f"{answers.sentence(str(error))}{nothing}") from error

    def _list(
        self, *, status: str | None, provider: str | None, limit: int, json: bool, **options: Any
    ) -> None:
        chosen, now = _chosen(status, provider), database_now()
        jobs = list(chosen.order_by("-id")[:limit])
        if json:
            self._write([answers.job(job, plan_of_active(job, now=now), now=now) for job in jobs])
            return
        if not jobs:
            self.stdout.write("No jobs." if status is None and provider is None else "No such jobs.")
            return
        ids, console = short_ids(jobs), console_on(self.stdout)
        console.print(job_table(jobs, ids, now=now))
        console.print("last good: when a poll last brought a price; failed: polls since then")
        if any(job.market_hours for job in jobs):
            console.print("* in the hours of its markets, and for an hour after")
        found = {ids[job.id]: all_blockers(job, plan_of_active(job, now=now), now=now) for job in jobs}
        blocked = {name: texts for name, texts in found.items() if texts}
        if blocked:
            console.print("\nKept from polling, or from polling as often as asked for:")
            console.print(blocked_table(blocked))
        left = chosen.count() - len(jobs)
        if left > 0:
            console.print(f"\nand {left:,} older ones; --limit shows more")

    def _show(self, *, id: str, json: bool, **options: Any) -> None:  # noqa: A002 - the option's name
        (job,), now = find_jobs([id]), database_now()
        plan, last_day = plan_of_active(job, now=now), count_last_day(job, now=now)
        runs = list(runs_of(job)[:SHOWN_ROWS])
        ranges = missed_slots(job, since=now - DAY, until=now, limit=SHOWN_ROWS)
        if json:
            ledger = {"runs": list(map(answers.run, runs)), "gaps": list(map(answers.missed_range, ranges))}
            self._write(answers.job_detail(job, plan, last_day, now=now) | ledger)
            return
        console = console_on(self.stdout)
        console.print(detail_table(job, plan, last_day, now=now))
        console.print("\nThe last polls (times in UTC; late: from when it was due to when it was begun)")
        console.print(run_table(runs) if runs else "none")
        console.print("\nSlots without a price in the last 24 h, the last ones first (gap: nobody polled)")
        console.print(missed_table(ranges) if ranges else "none")

    def _change(self, action: str, ids: Sequence[str]) -> None:
        jobs = find_jobs(ids)
        ended = [str(job.id) for job in jobs if job.status == JobStatus.STOPPED]
        if ended and action != "stop":
            raise JobChoiceError(f"stopped for good before: {', '.join(ended)}")
        changed: list[PollJob] = []
        try:
            for job in jobs:
                changed.append(CHANGES[action](job.id))  # noqa: PERF401 - kept as far as it got
        except JobStoppedError as error:
            left = jobs[len(changed)].id
            raise CommandError(
                f"{left} was stopped for good meanwhile; it and the next were left."
            ) from error
        finally:
            if action != "resume":
                wait_for_started_fetches([job.id for job in changed])
            for job, after in zip(jobs, changed, strict=False):
                before = " before" if after.status == job.status else ""
                self.stdout.write(f"{job.id}  {after.status}{before}: {job}")

    def _write(self, data: Any) -> None:
        self.stdout.write(msgspec.json.encode(data).decode())


def _chosen(status: str | None, provider: str | None) -> QuerySet[PollJob]:
    try:
        name = None if provider is None else normalise_name(provider)
    except UnknownProviderError as error:
        raise CommandError(f"--provider: {error}", returncode=2) from error
    return select_jobs(statuses=[] if status is None else [status], provider=name)
