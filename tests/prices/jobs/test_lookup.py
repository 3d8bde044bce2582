"""Jobs named by the beginning of their id."""

from uuid import UUID

import pytest
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from prices.jobs.lookup import JobChoiceError, find_jobs, short_ids
from prices.models import PollJob

pytestmark = pytest.mark.django_db
FIRST = UUID("01a20694-6b2e-7c1d-9a55-0f3e8d1c7b42")
SAME_MILLISECOND = UUID("01a20694-6b2e-7c1e-9a55-0f3e8d1c7b42")
SAME_MINUTE = UUID("01a20694-ffff-7c1d-9a55-0f3e8d1c7b42")
LATER = UUID("01a30694-6b2e-7c1d-9a55-0f3e8d1c7b42")


def add_jobs(*ids: UUID) -> list[PollJob]:
    schedule = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    return [
        PollJob.objects.create(
            id=job_id,
            symbols=["SIM-A"],
            interval=1,
            periodic_task=PeriodicTask.objects.create(name=f"{job_id}", task="x", interval=schedule),
        )
        for job_id in ids
    ]


@pytest.mark.parametrize(
    "text", [str(LATER), str(LATER).upper(), LATER.hex, "01a30694", "01a30694-", "01A306946b"]
)
def test_job_is_found_by_its_id_or_its_beginning(text: str) -> None:
    add_jobs(FIRST, LATER)
    assert [job.id for job in find_jobs([text])] == [LATER]


def test_jobs_are_found_in_their_order_each_once() -> None:
    add_jobs(FIRST, LATER)
    found = find_jobs(["01a30694", "01a20694", str(LATER)])
    assert [job.id for job in found] == [LATER, FIRST]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("01a2069", "'01a2069' is no id: give its first 8 or more characters"),
        ("", "'' is no id: give its first 8 or more characters"),
        ("SIM-ACME-", "'SIM-ACME-' is no id: give its first 8 or more characters"),
        (f"{FIRST}0", f"'{FIRST}0' is no id: give its first 8 or more characters"),
        ("01a40694", "there is no job 01a40694"),
        (str(FIRST)[:-1] + "3", "there is no job 01a20694-6b2e-7c1d-9a55-0f3e8d1c7b43"),
        ("01a20694", f"several jobs begin with 01a20694: give more of the id, such as {FIRST}"),
    ],
)
def test_what_names_no_single_job_is_refused(text: str, problem: str) -> None:
    add_jobs(FIRST, SAME_MINUTE)
    with pytest.raises(JobChoiceError) as caught:
        find_jobs([text])
    assert str(caught.value) == problem


def test_every_wrong_id_is_told_in_one_line() -> None:
    add_jobs(FIRST)
    with pytest.raises(JobChoiceError) as caught:
        find_jobs(["01a20694", "a\nb", "01a40694"])
    assert str(caught.value) == (
        r"'a\nb' is no id: give its first 8 or more characters; there is no job 01a40694"
    )


def test_short_ids_find_their_jobs_again() -> None:
    jobs = add_jobs(FIRST, SAME_MILLISECOND, SAME_MINUTE, LATER)
    shown = short_ids(jobs)
    assert [job.id for job in find_jobs(shown.values())] == [job.id for job in jobs]
    assert shown[SAME_MINUTE] == "01a20694-ffff"
    assert shown[FIRST] == str(FIRST)


def test_short_ids_look_at_jobs_that_are_not_shown() -> None:
    first, _ = add_jobs(FIRST, SAME_MILLISECOND)
    assert short_ids([first]) == {FIRST: str(FIRST)}


def test_deleted_job_is_not_found_and_makes_no_other_ambiguous() -> None:
    deleted, kept = add_jobs(FIRST, SAME_MILLISECOND)
    PollJob.objects.filter(id=deleted.id).update(status="stopped", deleted_at=timezone.now())
    assert [job.id for job in find_jobs([str(FIRST)[:13]])] == [kept.id]
    assert short_ids([kept]) == {kept.id: str(kept.id)[:13]}
    with pytest.raises(JobChoiceError, match=f"there is no job {FIRST}"):
        find_jobs([str(FIRST)])
