"""What was sent to a provider lately, by what was stored: for a Redis that has lost its counts."""

from datetime import timedelta

from django.utils import timezone

from prices.ids import first_id_at
from prices.models import RawMarketData
from providers.budget import SentTimes


def load_sent_times(provider: str, seconds: float) -> SentTimes:
    """Give when the answers of the last so many seconds came, those to GET latest apart."""
    since = timezone.now() - timedelta(seconds=seconds)
    rows = RawMarketData.objects.filter(provider=provider, id__gte=first_id_at(since), received_at__gte=since)
    times = list(rows.values_list("received_at", "poll"))
    return SentTimes(
        job=[received_at for received_at, poll in times if poll is not None],
        latest=[received_at for received_at, poll in times if poll is None],
    )
