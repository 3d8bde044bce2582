"""What was sent to a provider lately, by what was stored: for a Redis that has lost its counts."""

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from prices.ids import first_id_received
from prices.models import PollRun, RawMarketData, RunState
from providers.budget import SentTimes

_JUST_BEGUN = timedelta(seconds=1)


def load_sent_times(provider: str, seconds: float) -> SentTimes:
    """Give when the answers of the last so many seconds came, those to GET latest apart.

    For polls that have begun and not ended there is one more, now: they may have a request under way.
    """
    now = timezone.now()
    since = now - timedelta(seconds=seconds)
    rows = RawMarketData.objects.filter(provider=provider, id__gte=first_id_received(since))
    times = list(rows.filter(received_at__gte=since).values_list("received_at", "poll"))
    under_way = [now] if _is_polled(provider, now) else []
    return SentTimes(
        job=under_way + [received_at for received_at, poll in times if poll is not None],
        latest=[received_at for received_at, poll in times if poll is None],
    )


def _is_polled(provider: str, now: datetime) -> bool:
    # Not the poll that asks: it has just begun, or goes on where another provider left off.
    began = (now - timedelta(seconds=settings.POLL_DEADLINE_S), now - _JUST_BEGUN)
    open_runs = PollRun.objects.filter(state=RunState.CLAIMED, started_at__range=began)
    return open_runs.filter(job__provider=provider).exists()
