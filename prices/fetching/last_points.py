"""The last points of symbols that callers ask for, in Redis, so that an answer needs no query.

An entry holds what the table has of a symbol: of each provider the last LOOKED_AT points of a day. Who reads
the table for a caller makes it, and it ends LATEST_REUSE_S later. Who stores a point adds it to the symbol's
entry, if there is one, once it is committed. An entry is begun before the table is read, and what is added
meanwhile is kept: it lacks no point that was committed before the answer was asked for. Only where a process
dies between its commit and the addition a point is missing until the entry ends, and the others are as old as
they say.

Nobody depends on it: where Redis is away or refuses, the table is read.
"""

import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import redis
import structlog
from django.conf import settings
from django.db import Error as DatabaseError

from prices.database.identity import database_id
from prices.database.uuid7 import CLOCKS_AGREE_WITHIN, epoch_ms, made_at_ms
from prices.models import PricePoint
from prices.models.price_point import newest_first
from providers.rate_limits.redis_calls import prepared_script, read_values, redis_client
from providers.rate_limits.redis_errors import redis_problem
from providers.rate_limits.redis_scripts import PREFIX as REDIS_PREFIX

log = structlog.get_logger(__name__)

PREFIX = f"{REDIS_PREFIX}:last"
# Of each provider. A few and not one: one that answers from several machines goes back in time now and then.
LOOKED_AT = 5
# The table is read in less; if not, the entry is not made.
_BEGUN_FOR_MS = 5_000
# Entries of this process that need not be decoded again, 5 KB each.
_DECODED = 2_048

# Ids are of one length and in lower case, so their order is that of the texts.
_COMMON = """
local function entry_of(key)
  local text = redis.pcall('GET', key)
  if not text then return nil end
  local is_read, entry = pcall(cjson.decode, text)
  if is_read and type(entry) == 'table' and type(entry.points) == 'table' then return entry end
  redis.call('DEL', key)
end

local function merge(points, more)
  for _, point in ipairs(more) do
    local of_provider = points[point[2]] or {}
    local place = 1
    while of_provider[place] and of_provider[place][1] > point[1] do place = place + 1 end
    if not (of_provider[place] and of_provider[place][1] == point[1]) then
      table.insert(of_provider, place, point)
    end
    of_provider[tonumber(ARGV[1]) + 1] = nil
    points[point[2]] = of_provider
  end
end
"""
_ADD = (
    _COMMON
    + """
for number, key in ipairs(KEYS) do
  local entry = entry_of(key)
  if entry then
    merge(entry.points, cjson.decode(ARGV[number + 1]))
    redis.call('SET', key, cjson.encode(entry), 'KEEPTTL')
  end
end
"""
)
_COMPLETE = (
    _COMMON
    + """
for number, key in ipairs(KEYS) do
  local entry = entry_of(key)
  if entry and entry.begun_by == ARGV[2] then
    merge(entry.points, cjson.decode(ARGV[number + 4]))
    entry.begun_by = nil
    entry.made_at = ARGV[3]
    redis.call('SET', key, cjson.encode(entry), 'PX', ARGV[4])
  end
end
"""
)


class _Point(msgspec.Struct, array_like=True, gc=False):
    id: UUID
    provider: str
    symbol: str
    price: Decimal
    currency: str | None
    observed_at: datetime | None
    precision: str
    received_at: datetime
    raw: UUID


class _Entry(msgspec.Struct, omit_defaults=True):
    """What Redis holds; `begun_by` names who still reads the table for it, `made_at` is when it was read."""

    points: dict[str, list[_Point]]
    begun_by: str = ""
    made_at: datetime | None = None


class _Decoded(NamedTuple):
    made_at: datetime
    points: tuple[PricePoint, ...]
    last_id_ms: int
    last_received_at: datetime


class Begun:
    """Entries that the caller has begun, and is to complete."""

    def __init__(self, token: str, symbols: Sequence[str]) -> None:
        self._token = token
        self._symbols = symbols

    def complete(self, points: Iterable[PricePoint], *, now: datetime) -> None:
        """Make the entries of what the table has of their symbols."""
        by_symbol = _by_symbol(points)
        # A symbol without a price is asked for by nobody for long.
        found = [symbol for symbol in self._symbols if symbol in by_symbol]
        if found:
            values = [_encoder.encode(by_symbol[symbol]) for symbol in found]
            reuse_ms = int(settings.LATEST_REUSE_S * 1000)
            _run(_COMPLETE, found, [self._token, now.isoformat(), reuse_ms, *values])


def read_entries(symbols: Sequence[str], *, now: datetime) -> dict[str, tuple[PricePoint, ...]]:
    """Return the points of the symbols that have an entry, by the provider's time, the newest first.

    An entry counts as none where a point's times are still to come, and LATEST_REUSE_S after it was made,
    whatever Redis' clock says. Raises SharedStateError where Redis is away.
    """
    keys = _keys(symbols)
    made_after = now - timedelta(seconds=settings.LATEST_REUSE_S)
    # As IS_OF_TIME_UNTIL_NOW has it.
    now_ms, latest = epoch_ms(now), now + CLOCKS_AGREE_WITHIN
    entries = {}
    for symbol, key, value in zip(symbols, keys, read_values(keys), strict=True):
        found = None if value is None else _decoded_or_none(key, value)
        if found is None or found.made_at <= made_after:
            continue
        if found.last_id_ms <= now_ms and found.last_received_at <= latest:
            entries[symbol] = found.points
    return entries


def begin_entries(symbols: Sequence[str]) -> Begun:
    """Begin the entries of symbols that have none, before the table is read."""
    token = uuid.uuid4().hex
    if not settings.LATEST_REUSE_S:
        return Begun(token, ())
    placeholder = _encoder.encode(_Entry({}, begun_by=token))
    try:
        with redis_client(settings.REDIS_URL).pipeline(transaction=False) as pipeline:
            for key in _keys(symbols):
                pipeline.set(key, placeholder, nx=True, px=_BEGUN_FOR_MS)
            began = pipeline.execute()
    except redis.RedisError as error:
        _log(error)
        return Begun(token, ())
    return Begun(token, [symbol for symbol, is_begun in zip(symbols, began, strict=True) if is_begun])


def add_points(points: Iterable[PricePoint]) -> None:
    """Add points that were committed to the entries of their symbols, where there are any; never raises."""
    by_symbol = _by_symbol(points)
    if not by_symbol or not settings.LATEST_REUSE_S:
        return
    try:
        _run(_ADD, list(by_symbol), [_encoder.encode(records) for records in by_symbol.values()])
    except DatabaseError as error:
        # They are stored: whoever stored them has more to do with them.
        log.warning("last_points.not_kept", reason=str(error).partition("\n")[0])


def _by_symbol(points: Iterable[PricePoint]) -> Mapping[str, list[_Point]]:
    in_order = sorted(points, key=lambda point: point.symbol)
    return {
        symbol: [_record(point) for point in group]
        for symbol, group in groupby(in_order, key=lambda point: point.symbol)
    }


def _record(point: PricePoint) -> _Point:
    return _Point(**{name: getattr(point, name) for name in _Point.__struct_fields__})


def _decoded_or_none(key: str, value: bytes) -> _Decoded | None:
    try:
        return _decoded(value)
    except msgspec.DecodeError:
        with suppress(redis.RedisError):
            redis_client(settings.REDIS_URL).delete(key)
        log.warning("redis.garbage_deleted", names=[key])
        return None


@functools.lru_cache(maxsize=_DECODED)
def _decoded(value: bytes) -> _Decoded | None:
    """Return an entry, None where it is not made yet."""
    entry = _decoder.decode(value)
    if entry.made_at is None or not entry.points:
        return None
    points = newest_first(
        PricePoint(**{name: getattr(record, name) for name in record.__struct_fields__})
        for records in entry.points.values()
        for record in records
    )
    return _Decoded(
        entry.made_at,
        tuple(points),
        last_id_ms=max(made_at_ms(point.id) for point in points),
        last_received_at=max(point.received_at for point in points),
    )


def _keys(symbols: Sequence[str]) -> list[str]:
    prefix = f"{PREFIX}:{database_id()}"
    return [f"{prefix}:{symbol}" for symbol in symbols]


def _run(script: str, symbols: Sequence[str], arguments: Sequence[Any]) -> None:
    try:
        prepared_script(settings.REDIS_URL, script)(_keys(symbols), [LOOKED_AT, *arguments])
    except redis.RedisError as error:
        _log(error)


def _log(error: redis.RedisError) -> None:
    log.debug("last_points.not_kept", reason=f"Redis {redis_problem(error)}")


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Entry)
