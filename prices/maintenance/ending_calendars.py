"""Calendars of exchanges that end soon, or have ended, while jobs poll listings of these exchanges."""

from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import connection

from prices.models import JobStatus
from providers.markets.calendars import ALWAYS_OPEN, CURRENCY_WEEK, calendar_of
from providers.markets.exchange_schedules import last_known_day

TOLD_BEFORE = timedelta(days=60)

_POLLED = "SELECT DISTINCT provider, unnest(symbols) FROM poll_jobs WHERE status = %s"


def ending_calendars(*, now: datetime) -> dict[str, date]:
    """Return the last known day of each such exchange, by its code (ISO 10383)."""
    with connection.cursor() as cursor:
        cursor.execute(_POLLED, [JobStatus.ACTIVE])
        polled = cursor.fetchall()
    codes = {
        code
        for provider, symbol in polled
        for name in ([provider] if provider else settings.PROVIDER_ORDER)
        if (code := calendar_of(symbol, provider=name)) and code not in {ALWAYS_OPEN, CURRENCY_WEEK}
    }
    ends = {code: last_known_day(code) for code in sorted(codes)}
    return {code: end for code, end in ends.items() if end and end - now.date() <= TOLD_BEFORE}
