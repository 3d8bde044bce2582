"""Answers become rows: raw_market_data and price_points, together in one transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar
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

_Row = TypeVar("_Row", RawMarketData, PricePoint)


@dataclass(slots=True)
class Stored:
    """The points that were stored, and the symbols whose price the database refused."""

    points: list[PricePoint] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def store_attempts(attempts: Sequence[Attempt], *, provider: str, poll: UUID | None) -> Stored:
    """Store every attempt, and a point for each of its quotes. Call it inside a transaction.

    Where the database refuses the data of one attempt (text that it cannot hold), the attempts
    are stored one by one: that one keeps its body and loses its points, the others lose nothing.
    """
    try:
        with transaction.atomic():
            return Stored(_store(attempts, provider, poll))
    except (DataError, IntegrityError):
        return _store_one_by_one(attempts, provider, poll)


def _store_one_by_one(attempts: Sequence[Attempt], provider: str, poll: UUID | None) -> Stored:
    stored = Stored()
    for attempt in attempts:
        try:
            with transaction.atomic():
                stored.points += _store([attempt], provider, poll)
        except (DataError, IntegrityError) as error:
            log.warning("answer.refused", provider=provider, poll_id=str(poll), error=type(error).__name__)
            stored.points += _store_without_payload(attempt, provider, poll, stored.refused)
    return stored


def _store_without_payload(
    attempt: Attempt, provider: str, poll: UUID | None, refused: list[str]
) -> list[PricePoint]:
    (raw,) = _with_ids([_raw_row(attempt, provider, poll)])
    raw.body, raw.payload = _body_of(attempt), None
    raw.save(force_insert=True)
    points = _point_rows(attempt, provider, raw)
    try:
        with transaction.atomic():
            return PricePoint.objects.bulk_create(_with_ids(points))
    except (DataError, IntegrityError):
        refused += [point.symbol for point in points]
        return []


def _store(attempts: Sequence[Attempt], provider: str, poll: UUID | None) -> list[PricePoint]:
    raws = [_raw_row(attempt, provider, poll) for attempt in attempts]
    points = [
        point
        for attempt, raw in zip(attempts, _with_ids(raws), strict=True)
        for point in _point_rows(attempt, provider, raw)
    ]
    RawMarketData.objects.bulk_create(raws)
    return PricePoint.objects.bulk_create(_with_ids(points))


def _with_ids(rows: list[_Row]) -> list[_Row]:
    for row, row_id in zip(rows, new_ids(len(rows)), strict=True):
        row.id = row_id
    return rows


def _raw_row(attempt: Attempt, provider: str, poll: UUID | None) -> RawMarketData:
    payload = _json_of(attempt)
    errors = [result for result in attempt.results.values() if isinstance(result, ProviderError)]
    answered = len(errors) < len(attempt.results)
    return RawMarketData(
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


def _point_rows(attempt: Attempt, provider: str, raw: RawMarketData) -> list[PricePoint]:
    return [
        PricePoint(
            symbol=quote.symbol,
            provider=provider,
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
