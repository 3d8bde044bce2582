"""Answers become rows: raw_market_data and price_points, together in one transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import DataError, IntegrityError, models, transaction
from django.db.models import Value
from django.db.models.functions import Cast

from prices.database.uuid7 import EPOCH, made_at_ms, new_ids
from prices.fetching.exchange import RoundTrip, errors_in
from prices.models import Outcome, PricePoint, RawMarketData
from prices.models.raw_market_data import BODY_LIMIT_BYTES
from providers.base import Quote

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Stored:
    """The points that were stored, and the symbols whose price the database refused."""

    points: list[PricePoint] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def store_round_trips(
    round_trips: Sequence[RoundTrip],
    *,
    raw_ids: Sequence[UUID],
    provider: str,
    poll: UUID | None,
    is_fallback: bool = False,
) -> Stored:
    """Store every round trip, and a point for each of its quotes. Call it inside a transaction.

    `is_fallback`: they were sent for a poll that another provider did not serve.

    `raw_ids` are the round trips' ids, from `new_ids`: called again with the same ones (the answer to
    a COMMIT was lost), it stores nothing twice and gives the points that are there.

    Where the database refuses the data of one round trip (text that it cannot hold), the round trips
    are stored one by one: that one keeps its body and loses its points, the others lose nothing.
    """
    if RawMarketData.objects.filter(id__in=raw_ids).exists():
        return Stored(list(PricePoint.objects.filter(raw__in=raw_ids, id__gte=min(raw_ids)).order_by("id")))
    raws = [
        _raw_row(round_trip, raw_id, provider, poll, is_fallback=is_fallback)
        for round_trip, raw_id in zip(round_trips, raw_ids, strict=True)
    ]
    try:
        with transaction.atomic():
            return Stored(_store(round_trips, raws))
    except (DataError, IntegrityError):
        return _store_one_by_one(round_trips, raws)


def _store_one_by_one(round_trips: Sequence[RoundTrip], raws: Sequence[RawMarketData]) -> Stored:
    stored = Stored()
    for round_trip, raw in zip(round_trips, raws, strict=True):
        try:
            with transaction.atomic():
                stored.points += _store([round_trip], [raw])
        except (DataError, IntegrityError) as error:
            log.warning(
                "answer.refused", provider=raw.provider, raw_id=str(raw.id), error=type(error).__name__
            )
            stored.points += _store_without_payload(round_trip, raw, stored.refused)
    return stored


def _store_without_payload(round_trip: RoundTrip, raw: RawMarketData, refused: list[str]) -> list[PricePoint]:
    raw.body, raw.payload = _body_of(round_trip), None
    raw.save(force_insert=True)
    points = _point_rows(round_trip, raw)
    try:
        with transaction.atomic():
            return PricePoint.objects.bulk_create(_with_ids(points))
    except (DataError, IntegrityError):
        refused += [point.symbol for point in points]
        return []


def _store(round_trips: Sequence[RoundTrip], raws: Sequence[RawMarketData]) -> list[PricePoint]:
    points = [
        point
        for round_trip, raw in zip(round_trips, raws, strict=True)
        for point in _point_rows(round_trip, raw)
    ]
    RawMarketData.objects.bulk_create(raws)
    return PricePoint.objects.bulk_create(_with_ids(points))


def _with_ids(points: list[PricePoint]) -> list[PricePoint]:
    for point, point_id in zip(points, new_ids(len(points)), strict=True):
        point.id = point_id
    return points


def _raw_row(
    round_trip: RoundTrip, raw_id: UUID, provider: str, poll: UUID | None, *, is_fallback: bool
) -> RawMarketData:
    payload = _json_of(round_trip)
    errors = list(errors_in(round_trip.results).values())
    answered = len(errors) < len(round_trip.results)
    return RawMarketData(
        id=raw_id,
        poll=poll,
        is_fallback=is_fallback,
        provider=provider,
        symbols=list(round_trip.request.symbols),
        url=round_trip.answer.url if round_trip.answer else "",
        status=round_trip.answer.status if round_trip.answer else None,
        outcome=Outcome.QUOTE if answered else Outcome(errors[0].kind),
        message=errors[0].message[:500].replace("\0", "") if errors else "",
        # PostgreSQL reads the text itself: its numbers keep every digit.
        payload=None if payload is None else Cast(Value(payload, models.TextField()), models.JSONField()),
        body=_body_of(round_trip) if payload is None else None,
        received_at=_received_at(round_trip, raw_id),
        latency_ms=round_trip.latency_ms,
    )


def _point_rows(round_trip: RoundTrip, raw: RawMarketData) -> list[PricePoint]:
    received_at = raw.received_at
    return [
        PricePoint(
            symbol=quote.symbol,
            provider=raw.provider,
            price=quote.price,
            currency=quote.currency,
            # A price of the running day has the time of its receipt for its own.
            observed_at=received_at if quote.observed_at == round_trip.received_at else quote.observed_at,
            precision=quote.precision,
            received_at=received_at,
            raw=raw.id,
        )
        for quote in round_trip.results.values()
        if isinstance(quote, Quote)
    ]


def _received_at(round_trip: RoundTrip, raw_id: UUID) -> datetime:
    """Return when it came: not later than its id was made, should the clock of this process be ahead."""
    return min(round_trip.received_at, EPOCH + timedelta(milliseconds=made_at_ms(raw_id) + 1))


def _json_of(round_trip: RoundTrip) -> str | None:
    if round_trip.answer is None:
        return None
    try:
        text = round_trip.answer.body.decode()
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    # jsonb holds no NUL, escaped or not.
    return None if "\\u0000" in text else text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _body_of(round_trip: RoundTrip) -> bytes | None:
    return round_trip.answer.body[:BODY_LIMIT_BYTES] if round_trip.answer else None
