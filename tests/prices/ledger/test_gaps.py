"""Gaps that follow each other are one row."""

from datetime import UTC, datetime, timedelta

import pytest

from prices.ledger.gaps import Gap, GapReason, add_gaps
from prices.ledger.ranges import SlotRange
from prices.models import PollGap, PollJob
from tests.conftest import MakeJob

START = datetime(2026, 11, 23, tzinfo=UTC)
STEP = timedelta(seconds=10)
pytestmark = pytest.mark.django_db


def gap(
    job: PollJob, first: int, last: int, reason: GapReason = GapReason.DOWN, step: timedelta = STEP
) -> Gap:
    return Gap(job.id, SlotRange(START + first * step, START + last * step, step), reason)


def kept() -> list[tuple[int, int, int, str]]:
    return [
        ((row.from_due - START) // STEP, (row.to_due - START) // STEP, row.slots, row.reason)
        for row in PollGap.objects.order_by("from_due")
    ]


@pytest.mark.parametrize(
    ("before", "added", "wanted"),
    [
        ([], [(3, 5)], [(3, 5, 3)]),
        ([(1, 2)], [(3, 5)], [(1, 5, 5)]),
        ([(6, 6)], [(3, 5)], [(3, 6, 4)]),
        ([(1, 2), (6, 9)], [(3, 5)], [(1, 9, 9)]),
        ([(1, 1), (7, 9)], [(3, 5)], [(1, 1, 1), (3, 5, 3), (7, 9, 3)]),
        ([(2, 2)], [(1, 1), (3, 3), (4, 4)], [(1, 4, 4)]),
        ([(4, 5)], [(7, 7), (6, 6), (1, 1)], [(1, 1, 1), (4, 7, 4)]),
    ],
)
def test_adjoining_gaps_are_one_row(
    make_job: MakeJob,
    before: list[tuple[int, int]],
    added: list[tuple[int, int]],
    wanted: list[tuple[int, int, int]],
) -> None:
    job = make_job()
    for first, last in before:
        add_gaps([gap(job, first, last)])
    add_gaps([gap(job, first, last) for first, last in added])
    assert kept() == [(*row, "down: no scheduler ran") for row in wanted]


def test_gaps_of_other_reasons_jobs_and_grids_stay_apart(make_job: MakeJob) -> None:
    job, other = make_job(), make_job()
    add_gaps([gap(job, 1, 2)])
    add_gaps([gap(job, 3, 3, GapReason.PAUSED), gap(other, 3, 3)])
    # At 20 s and 25 s: the next slot of a job of 10 s that is one of 5 s from there on.
    add_gaps([gap(job, 5, 6, step=STEP / 2)])
    assert sorted(PollGap.objects.values_list("slots", flat=True)) == [1, 1, 2, 2]
