"""What was sent to a provider lately, by what was stored: for a Redis that has lost its counts."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings

from prices.clock import database_now
from prices.database.uuid7 import first_id_received
from prices.jobs.services import provider_of
from prices.models import PollRun, RawMarketData, RunState
from providers.rate_limits.budget import SentTimes
from providers.rate_limits.redis_scripts import under_way_ms

_JUST_BEGUN = timedelta(seconds=1)


def load_sent_times(provider: str, seconds: float, *, asking: Collection[UUID] = ()) -> SentTimes:
    """Return when the answers of the last so many seconds came, by who paid for the requests.

    A poll that began in that time and has neither ended nor an answer counts as a request at its start: it
    may have been sent, and its worker be dead. Those that ask are none: they have sent nothing yet, or have
    stored what was answered.
    """
    now = database_now()
    since = now - timedelta(seconds=seconds)
    rows = RawMarketData.objects.filter(provider=provider, id__gte=first_id_received(since))
    times = list(rows.filter(received_at__gte=since).values_list("received_at", "poll", "is_fallback"))
    answered = {poll for _received_at, poll, _is_fallback in times if poll is not None}
    return SentTimes(
        job=_starts_without_answer(provider, answered.union(asking), seconds=seconds, now=now)
        + [received_at for received_at, poll, is_fallback in times if poll is not None and not is_fallback],
        latest=[received_at for received_at, poll, is_fallback in times if poll is None or is_fallback],
    )


def _starts_without_answer(
    provider: str, left_out: Collection[UUID], *, seconds: float, now: datetime
) -> list[datetime]:
    # What may be under way counts in a shorter window, too.
    since_s = min(max(seconds, under_way_ms() / 1000), settings.POLL_DEADLINE_S)
    # Polls that begin together ask together, and would count each other without end.
    began = (now - timedelta(seconds=since_s), now - _JUST_BEGUN)
    open_runs = PollRun.objects.filter(state=RunState.CLAIMED, started_at__range=began)
    return [
        run.started_at
        for run in open_runs.select_related("job")
        if run.id not in left_out and provider_of(run.job) == provider
    ]
