"""Raw answers of providers by their id, and whether one that is not there may have been."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

from django.db.models import TextField
from django.db.models.functions import Cast

from prices.database.uuid7 import first_id_at
from prices.history.errors import RawAnswerGoneError, UnknownRawAnswerError
from prices.maintenance.partitions import day_of, days_with_partitions
from prices.models import RawMarketData

_TIMED_VERSION = 7


@dataclass(frozen=True, slots=True)
class AnswerWithBody:
    """A raw answer; `payload` is its JSON as PostgreSQL writes it, digits kept; None where it is none."""

    row: RawMarketData
    payload: str | None


def read_answer(raw_id: UUID) -> AnswerWithBody:
    """Return the raw answer of this id.

    Raises RawAnswerGoneError where answers of the time in the id are no longer kept, else
    UnknownRawAnswerError.
    """
    # The payload not by the model, which reads numbers as floats.
    rows = RawMarketData.objects.defer("payload").annotate(text=Cast("payload", TextField()))
    row = rows.filter(id=raw_id).first()
    if row is None:
        raise _missing(raw_id)
    return AnswerWithBody(row, row.text)


def find_answer(raw_id: UUID) -> RawMarketData | None:
    """Return the raw answer of this id without its body, None where it is not there any more."""
    return RawMarketData.objects.filter(id=raw_id).defer("payload", "body").first()


def _missing(raw_id: UUID) -> Exception:
    days = days_with_partitions("raw_market_data")
    oldest = day_of(days[0]) if days else date.min
    begin = datetime(oldest.year, oldest.month, oldest.day, tzinfo=UTC)
    if raw_id.version == _TIMED_VERSION and raw_id < first_id_at(begin):
        return RawAnswerGoneError(oldest)
    return UnknownRawAnswerError(raw_id)
