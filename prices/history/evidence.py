"""One price with all that is known of where it came from and what became of it."""

from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from prices.access.rights import FULL_ACCESS, Access
from prices.history.columns import Column, Kind, json_line
from prices.history.errors import UnknownPriceError
from prices.history.raw_answers import find_answer
from prices.history.tables import AVERAGES, POINTS
from prices.models import PollRun, RawMarketData

_POINT_COLUMNS = [*POINTS.columns, Column("published_at", "row.published_at", Kind.TIME)]
# Both by their key, whose time tells the partition.
_POINT = """
SELECT {point}, row.raw, (SELECT {average} FROM symbol_averages AS row WHERE row.event_id = %(id)s)
FROM price_points AS row WHERE row.id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A price and its average as objects of JSON, the raw answer that it is from, the run that asked for it.

    `average` is None until the consumer has computed it, `raw` once it is dropped with its day. `run` is None
    where no job asked (GET /prices/latest did) or one that is not the caller's, once it is dropped with its
    day, and where `raw` is None.
    """

    point: str
    average: str | None
    raw: RawMarketData | None
    run: PollRun | None


def read_evidence(event_id: UUID, *, prices_as_text: bool, access: Access = FULL_ACCESS) -> Evidence:
    """Return the price of this id with its evidence. Raises UnknownPriceError."""
    statement = _POINT.format(
        point=json_line(_POINT_COLUMNS, prices_as_text=prices_as_text),
        average=json_line(AVERAGES.columns, prices_as_text=prices_as_text),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, {"id": event_id})
        found = cursor.fetchone()
    if found is None:
        raise UnknownPriceError(event_id)
    point, raw_id, average = found
    raw = find_answer(raw_id)
    run = None if raw is None or raw.poll is None else _find_run(raw.poll, access)
    return Evidence(point, average, raw, run)


def _find_run(run_id: UUID, access: Access) -> PollRun | None:
    run = PollRun.objects.select_related("job").filter(id=run_id).first()
    return run if run is not None and access.owns(run.job.client_id) else None
