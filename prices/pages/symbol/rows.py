"""What the page of a symbol shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from prices.access.rights import Access
from prices.history.columns import json_line
from prices.history.query import Query, read_page
from prices.history.tables import AVERAGES_WITH_INPUTS
from prices.jobs.listing import select_jobs
from prices.latest.known_symbols import KnownSymbol, known_symbol
from prices.latest.stored import last_points_of_week
from prices.ledger.reports import MissedRange, missed_slots
from prices.models import PollJob, PricePoint
from prices.pages.last_closes import changes_since_close
from prices.pages.quotes import Quote, quote_of
from prices.symbols import is_simulated

ROWS = 20
GAPS = 10
# Of more jobs the gaps are on their own pages.
JOBS_WITH_GAPS = 5
GAPS_WITHIN = timedelta(days=1)


class Input(msgspec.Struct, frozen=True):
    """A price of a window; `raw_id` is the answer that it came with, None once that point is gone."""

    event_id: UUID
    price: Decimal
    raw_id: UUID | None = None


class AverageRow(msgspec.Struct, frozen=True):
    """A row of averages with its window, the newest price first."""

    event_id: UUID
    price: Decimal
    currency: str | None
    average: Decimal | None
    provider: str
    observed_at: datetime | None
    created_at: datetime
    inputs: list[Input]


@dataclass(frozen=True, slots=True)
class GapRow:
    """A range of slots of a job that got no price."""

    job: PollJob
    gap: MissedRange


@dataclass(frozen=True, slots=True)
class SymbolPage:
    """A symbol; `quote` is its last price, `quotes` those of each provider, who gave the newest one first."""

    symbol: str
    is_simulated: bool
    quote: Quote | None
    quotes: Sequence[Quote]
    average: Decimal | None
    averages: Sequence[AverageRow]
    jobs: Sequence[PollJob]
    gaps: Sequence[GapRow]


def read_symbol(symbol: str, *, now: datetime, access: Access) -> SymbolPage | None:
    """Return what is known of a symbol; None where no job polls it and there is no average of it."""
    known = known_symbol(symbol, now=now, access=access)
    averages = _averages(symbol, now=now)
    if not (known.jobs or known.last or averages):
        return None
    jobs = _jobs(known, access)
    points = _last_of_each(symbol, known, now=now)
    changes = changes_since_close(points[:1], now=now)
    quotes = [quote_of(point, changes.get(symbol), now=now) for point in points]
    return SymbolPage(
        symbol=symbol,
        is_simulated=is_simulated(symbol),
        quote=quotes[0] if quotes else None,
        quotes=quotes,
        average=None if known.average is None else known.average.average,
        averages=averages,
        jobs=jobs,
        gaps=list(_gaps(jobs, now=now))[:GAPS],
    )


def _averages(symbol: str, *, now: datetime) -> list[AverageRow]:
    """Return the newest rows of averages, with the raw answers that their inputs came with. Two queries."""
    line = json_line(AVERAGES_WITH_INPUTS.columns, prices_as_text=True)
    query = Query(symbols=[symbol])
    page = read_page(AVERAGES_WITH_INPUTS, query, line, limit=ROWS, separator=",", now=now)
    rows = msgspec.json.decode(f"[{page.text}]", type=list[AverageRow])
    ids = {each.event_id for row in rows for each in row.inputs}
    if not ids:
        return rows
    points = PricePoint.objects.filter(id__in=ids, id__range=(min(ids), max(ids)))
    raw_ids = dict(points.values_list("id", "raw"))
    return [
        msgspec.structs.replace(
            row,
            inputs=[msgspec.structs.replace(each, raw_id=raw_ids.get(each.event_id)) for each in row.inputs],
        )
        for row in rows
    ]


def _jobs(known: KnownSymbol, access: Access) -> list[PollJob]:
    ids = [job.job_id for job in known.jobs]
    return list(select_jobs(access=access).filter(id__in=ids).order_by("id"))


def _last_of_each(symbol: str, known: KnownSymbol, *, now: datetime) -> list[PricePoint]:
    """Return each provider's last point of the week, that of the last price first."""
    points = last_points_of_week([symbol], now=now)[symbol]
    first: dict[str, PricePoint] = {} if known.last is None else {known.last.provider: known.last}
    for point in points:
        first.setdefault(point.provider, point)
    return list(first.values())


def _gaps(jobs: Sequence[PollJob], *, now: datetime) -> Iterator[GapRow]:
    found = [
        GapRow(job, gap)
        for job in jobs[:JOBS_WITH_GAPS]
        for gap in missed_slots(job, since=now - GAPS_WITHIN, until=now, limit=GAPS)
    ]
    yield from sorted(found, key=lambda row: row.gap.from_due, reverse=True)
