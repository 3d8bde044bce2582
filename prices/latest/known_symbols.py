"""The symbols that are known: those of jobs, and those that had a price lately.

No list of them is kept. An index leads from one symbol of the points to the next, however many points each
has, so that a page costs a look or two for each symbol on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from prices.access.rights import FULL_ACCESS, Access
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, first_id_at, first_id_received
from prices.jobs.listing import select_jobs
from prices.latest.stored import COMPARED_WITHIN, STANDS_IN_WITHIN, last_points_of_week
from prices.models import JobStatus, PricePoint, SymbolAverage

# A symbol without a job is known for so long after its last price: it bounds the partitions that are read.
KNOWN_WITHIN = STANDS_IN_WITHIN

_IS_OF_TIME = "{key} >= %(lowest)s AND {key} < %(end)s"
# `number` counts what matches, so that no more is looked for than the page has room for.
_PAGE = f"""
WITH RECURSIVE stored (symbol, number) AS (
    SELECT %(after)s::text, 0
    UNION ALL
    SELECT next.symbol, stored.number + (strpos(next.symbol, %(part)s) > 0)::int
    FROM stored
    CROSS JOIN LATERAL (
        SELECT symbol FROM price_points
        WHERE symbol > stored.symbol AND {_IS_OF_TIME.format(key="id")}
        ORDER BY symbol LIMIT 1
    ) AS next
    WHERE stored.number < %(limit)s
), polled AS (
    SELECT symbol, array_agg(job.id ORDER BY job.id) AS ids, array_agg(job.status ORDER BY job.id) AS statuses
    FROM poll_jobs AS job CROSS JOIN unnest(job.symbols) AS symbol
    WHERE job.status = ANY(%(statuses)s)
    AND (%(is_of_all)s OR job.client_id IS NULL OR job.client_id = %(client)s)
    AND symbol > %(after)s AND strpos(symbol, %(part)s) > 0
    GROUP BY symbol
), page AS (
    SELECT symbol FROM stored WHERE symbol > %(after)s AND strpos(symbol, %(part)s) > 0
    UNION
    SELECT symbol FROM polled
    ORDER BY symbol LIMIT %(limit)s
)
SELECT symbol, coalesce(ids, '{{}}'), coalesce(statuses, '{{}}')
FROM page LEFT JOIN polled USING (symbol) ORDER BY symbol
"""  # noqa: S608 - no outside text
_LAST_AVERAGES = f"""
SELECT last.* FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
CROSS JOIN LATERAL (
    SELECT * FROM symbol_averages
    WHERE symbol = wanted.symbol AND {_IS_OF_TIME.format(key="event_id")}
    ORDER BY event_id DESC LIMIT 1
) AS last
"""  # noqa: S608 - no outside text


@dataclass(frozen=True, slots=True)
class PollingJob:
    """A job that polls a symbol, or would if it were not paused."""

    job_id: UUID
    status: str


@dataclass(frozen=True, slots=True)
class KnownSymbol:
    """A symbol, its jobs, and what the last days have of it.

    `providers` have given a price, who gave the last one first. `last` is the price that GET /prices/latest
    has without asking anybody, `average` the newest row of averages.
    """

    symbol: str
    jobs: Sequence[PollingJob]
    providers: Sequence[str]
    last: PricePoint | None
    average: SymbolAverage | None


def known_symbols(
    *, part: str, after: str, limit: int, now: datetime, access: Access = FULL_ACCESS
) -> list[KnownSymbol]:
    """Return the symbols that contain a text and come after another one, in their order, at most `limit`.

    Those of active and paused jobs that are the caller's, and those that had a price within KNOWN_WITHIN.
    Three queries.
    """
    bounds = {"lowest": first_id_received(now - KNOWN_WITHIN), "end": first_id_at(now + CLOCKS_AGREE_WITHIN)}
    whose = {"is_of_all": access.is_of_all_jobs, "client": access.client_id}
    jobs = _read_page(bounds | whose | {"part": part, "after": after, "limit": limit})
    symbols = list(jobs)
    if not symbols:
        return []
    points = last_points_of_week(symbols, now=now)
    averages = SymbolAverage.objects.raw(_LAST_AVERAGES, bounds | {"symbols": symbols})
    by_symbol = {row.symbol: row for row in averages}
    return [_known(symbol, jobs[symbol], points[symbol], by_symbol.get(symbol), now) for symbol in symbols]


def known_symbol(symbol: str, *, now: datetime, access: Access = FULL_ACCESS) -> KnownSymbol:
    """Return what is known of one symbol, if only that it has neither a job nor a price. Three queries."""
    statuses = [JobStatus.ACTIVE.value, JobStatus.PAUSED.value]
    jobs = select_jobs(statuses=statuses, symbol=symbol, access=access).order_by("id")
    bounds = {"lowest": first_id_received(now - KNOWN_WITHIN), "end": first_id_at(now + CLOCKS_AGREE_WITHIN)}
    averages = list(SymbolAverage.objects.raw(_LAST_AVERAGES, bounds | {"symbols": [symbol]}))
    return _known(
        symbol,
        [PollingJob(job.id, job.status) for job in jobs],
        last_points_of_week([symbol], now=now)[symbol],
        averages[0] if averages else None,
        now,
    )


def _read_page(values: dict[str, Any]) -> dict[str, list[PollingJob]]:
    statuses = [JobStatus.ACTIVE.value, JobStatus.PAUSED.value]
    with connection.cursor() as cursor:
        cursor.execute(_PAGE, values | {"statuses": statuses})
        return {
            symbol: [PollingJob(job_id, status) for job_id, status in zip(ids, found, strict=True)]
            for symbol, ids, found in cursor.fetchall()
        }


def _known(
    symbol: str,
    jobs: Sequence[PollingJob],
    points: Sequence[PricePoint],
    average: SymbolAverage | None,
    now: datetime,
) -> KnownSymbol:
    # As GET /prices/latest has it: what is older than a day counts where there is nothing younger.
    lately = [point for point in points if point.received_at > now - COMPARED_WITHIN]
    last = next(iter(lately or points), None)
    providers = dict.fromkeys(point.provider for point in [*lately, *points])
    return KnownSymbol(symbol, jobs, list(providers), last, average)
