"""Jobs as people name them on the command line: by the beginning of their id."""

import re
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db.models import Count, TextField
from django.db.models.functions import Cast, Left

from prices.jobs.listing import select_jobs
from prices.models import PollJob

# Less says only in which minute a job was created.
LEAST_CHARACTERS = 8
# The millisecond of the creation.
SHORT_ID_CHARACTERS = 13
_BEGINNING = re.compile(rf"[0-9a-f]{{{LEAST_CHARACTERS},32}}")


class JobChoiceError(ValueError):
    """A job cannot be told from what was given; the text says why, for each that cannot, in one line."""


def find_jobs(beginnings: Iterable[str]) -> list[PollJob]:
    """Return the one job of each id or beginning of one, in their order, each once.

    Case and dashes do not matter. Raises JobChoiceError where any of them has no job, or several.
    """
    jobs: dict[UUID, PollJob] = {}
    problems = []
    for text in dict.fromkeys(beginnings):
        found = _jobs_beginning_with(text)
        if isinstance(found, str):
            problems.append(found)
        else:
            jobs[found.id] = found
    if problems:
        raise JobChoiceError("; ".join(problems))
    return list(jobs.values())


def short_ids(jobs: Sequence[PollJob]) -> dict[UUID, str]:
    """Return for each job a beginning of its id that names no other job, or its whole id."""
    beginnings = {job.id: str(job.id)[:SHORT_ID_CHARACTERS] for job in jobs}
    shared = (
        PollJob.objects.filter(deleted_at=None)
        .order_by()
        .annotate(beginning=Left(Cast("id", TextField()), SHORT_ID_CHARACTERS))
        .values("beginning")
        .filter(beginning__in=set(beginnings.values()))
        .annotate(jobs=Count("id"))
        .filter(jobs__gt=1)
        .values_list("beginning", flat=True)
    )
    ambiguous = set(shared)
    return {job_id: str(job_id) if text in ambiguous else text for job_id, text in beginnings.items()}


def _jobs_beginning_with(text: str) -> PollJob | str:
    digits = text.lower().replace("-", "")
    if _BEGINNING.fullmatch(digits) is None:
        return f"{text[:60]!r} is no id: give its first {LEAST_CHARACTERS} or more characters"
    bounds = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    found = list(select_jobs().filter(id__range=bounds).order_by("id")[:2])
    if not found:
        return f"there is no job {text}"
    if len(found) > 1:
        return f"several jobs begin with {text}: give more of the id, such as {found[0].id}"
    return found[0]
