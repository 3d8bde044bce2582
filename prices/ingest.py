"""Answers become rows: raw_market_data and price_points, together in one transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from django.db import DataError, IntegrityError, models, transaction
from django.db.models import Value
from django.db.models.functions import Cast

from prices.fetching import Attempt
from prices.ids import new_ids
from prices.models import Outcome, PricePoint, RawMarketData
from prices.models.raw_market_data import BODY_LIMIT_BYTES
from providers.base import ProviderError, Quote

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Stored:
    """The points that were stored, and the symbols whose price the database refused."""

    points: list[PricePoint] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def store_attempts(
    attempts: Sequence[Attempt], *, raw_ids: Sequence[UUID], provider: str, poll: UUID | None
) -> Stored:
    """Store every attempt, and a point for each of its quotes. Call it inside a transaction.

    `raw_ids` are the attempts' ids, from `new_ids`: called again with the same ones (the answer to
    a COMMIT was lost), it stores nothing twice and gives the points that are there.

    Where the database refuses the data of one attempt (text that it cannot hold), the attempts
    are stored one by one: that one keeps its body and loses its points, the others lose nothing.
    """
    if RawMarketData.objects.filter(id__in=raw_ids).exists():
        return Stored(list(PricePoint.objects.filter(raw__in=raw_ids, id__gte=min(raw_ids)).order_by("id")))
    raws = [
        _raw_row(attempt, raw_id, provider, poll) for attempt, raw_id in zip(attempts, raw_ids, strict=True)
    ]
    try:
        with transaction.atomic():
            return Stored(_store(attempts, raws))
    except (DataError, IntegrityError):
        return _store_one_by_one(attempts, raws)


def _store_one_by_one(attempts: Sequence[Attempt], raws: Sequence[RawMarketData]) -> Stored:
    stored = Stored()
    for attempt, raw in zip(attempts, raws, strict=True):
        try:
            with transaction.atomic():
                stored.points += _store([attempt], [raw])
        except (DataError, IntegrityError) as error:
            log.warning(
                "answer.refused", provider=raw.provider, raw_id=str(raw.id), error=type(error).__name__
            )
            stored.points += _store_without_payload(attempt, raw, stored.refused)
    return stored


def _store_without_payload(attempt: Attempt, raw: RawMarketData, refused: list[str]) -> list[PricePoint]:
    raw.body, raw.payload = _body_of(attempt), None
    raw.save(force_insert=True)
    points = _point_rows(attempt, raw)
    try:
        with transaction.atomic():
            return PricePoint.objects.bulk_create(_with_ids(points))
    except (DataError, IntegrityError):
        refused += [point.symbol for point in points]
        return []


def _store(attempts: Sequence[Attempt], raws: Sequence[RawMarketData]) -> list[PricePoint]:
    points = [
        point for attempt, raw in zip(attempts, raws, strict=True) for point in _point_rows(attempt, raw)
    ]
    RawMarketData.objects.bulk_create(raws)
    return PricePoint.objects.bulk_create(_with_ids(points))


def _with_ids(points: list[PricePoint]) -> list[PricePoint]:
    for point, point_id in zip(points, new_ids(len(points)), strict=True):
        point.id = point_id
    return points


def _raw_row(attempt: Attempt, raw_id: UUID, provider: str, poll: UUID | None) -> RawMarketData:
    payload = _json_of(attempt)
    errors = [result for result in attempt.results.values() if isinstance(result, ProviderError)]
    answered = len(errors) < len(attempt.results)
    return RawMarketData(
        id=raw_id,
        poll=poll,
        provider=provider,
        symbols=list(attempt.request.symbols),
        url=attempt.answer.url if attempt.answer else "",
        status=attempt.answer.status if attempt.answer else None,
        outcome=Outcome.QUOTE if answered else Outcome(errors[0].kind),
        message=errors[0].message[:500].replace("\0", "") if errors else "",
        # PostgreSQL reads the text itself: its numbers keep every digit.
        payload=None if payload is None else Cast(Value(payload, models.TextField()), models.JSONField()),
        body=_body_of(attempt) if payload is None else None,
        received_at=attempt.received_at,
        latency_ms=attempt.latency_ms,
    )


def _point_rows(attempt: Attempt, raw: RawMarketData) -> list[PricePoint]:
    return [
        PricePoint(
            symbol=quote.symbol,
            provider=raw.provider,
            price=quote.price,
            currency=quote.currency,
            observed_at=quote.observed_at,
            precision=quote.precision,
            received_at=attempt.received_at,
            raw=raw.id,
        )
        for quote in attempt.results.values()
        if isinstance(quote, Quote)
    ]


def _json_of(attempt: Attempt) -> str | None:
    if attempt.answer is None:
        return None
    try:
        text = attempt.answer.body.decode()
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    # jsonb holds no NUL, escaped or not.
    return None if "\\u0000" in text else text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _body_of(attempt: Attempt) -> bytes | None:
    return attempt.answer.body[:BODY_LIMIT_BYTES] if attempt.answer else None
