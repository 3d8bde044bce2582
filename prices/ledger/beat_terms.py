"""The terms of beat: when somebody sent what was due."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from prices.ledger.ranges import Term, merge_terms
from prices.models import BeatTerm

# A leader notes each half a second that it still leads.
RENEWED_WITHIN = timedelta(seconds=0.5)

# The term that ended first may have begun later than others, where the clock was set back meanwhile.
_FIRST_LED = """
    SELECT job.created_at, greatest(job.created_at, term.began_at)
    FROM unnest(%s::timestamptz[]) AS job (created_at)
    CROSS JOIN LATERAL (
        SELECT renewed_at FROM beat_terms
        WHERE renewed_at >= job.created_at - make_interval(secs => %s) AND clock_ahead_s IS NULL
        ORDER BY renewed_at LIMIT 1
    ) first
    CROSS JOIN LATERAL (
        SELECT min(began_at) AS began_at FROM beat_terms
        WHERE renewed_at BETWEEN first.renewed_at AND first.renewed_at + interval '1 day'
          AND clock_ahead_s IS NULL
    ) term
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """When beat led, in order, and when it led by a clock that was ahead and was set back since."""

    right: Sequence[Term]
    by_clock_ahead: Sequence[Term]


def read_terms(since: datetime, until: datetime) -> Terms:
    """Return the terms that touch this time; those that follow each other within moments are one."""
    rows = BeatTerm.objects.filter(renewed_at__gte=since - RENEWED_WITHIN, began_at__lte=until)
    times = list(rows.order_by("began_at").values_list("began_at", "renewed_at", "clock_ahead_s"))
    return Terms(
        right=_merged(times, was_ahead=False),
        by_clock_ahead=_merged(times, was_ahead=True),
    )


def first_led(created: Iterable[datetime]) -> dict[datetime, datetime | None]:
    """Return when a beat first led at or after each time at which a job was created; None: not yet."""
    moments = list(created)
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_LED, [moments, RENEWED_WITHIN.total_seconds()])
        led = dict(cursor.fetchall())
    return {moment: led.get(moment) for moment in moments}


def _merged(times: Iterable[tuple[datetime, datetime, float | None]], *, was_ahead: bool) -> list[Term]:
    return merge_terms(
        (began_at, renewed_at + RENEWED_WITHIN)
        for began_at, renewed_at, ahead_s in times
        if (ahead_s is not None) == was_ahead
    )
