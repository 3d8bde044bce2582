"""Prices made up from the clock, for trying out: no key, no network, the same on every machine.

A price is a pure function of its symbol and the second: waves of several lengths on a level of its
own, each wave running through points that a hash fixes. So it wanders like a market, and two
processes (or two runs) never disagree. Symbols whose names say what they are have prices to match.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode
from zlib import crc32

from providers.adapters.parsing import ReadQuote, Rows, read_answer, read_object, status_error, to_time
from providers.base import Provider, Quote, RawAnswer, Request, Results, malformed, to_price
from providers.keys import SIMULATED, SIMULATED_PREFIX

SYMBOLS_PER_REQUEST = 100

# Length of a wave in seconds, and its height as a share of the price.
_WAVES = ((86_400, 0.10), (7_200, 0.03), (900, 0.01), (120, 0.004), (15, 0.0015), (2, 0.0005))


@dataclass(frozen=True, slots=True)
class _Character:
    """Around which price a symbol wanders (in units of its last decimal), how far, and by which waves."""

    level: int
    phases: tuple[int, ...]
    decimals: int = 2
    calm: float = 1.0


# Level, decimals, and how much of the waves: a pair of currencies moves little.
_NAMED = {
    "SIM-ACME": (150_00, 2, 0.5),
    "SIM-BTC": (60_000_00, 2, 0.5),
    "SIM-ETH": (3_000_00, 2, 0.5),
    "SIM-EURUSD": (1_10000, 5, 0.1),
    "SIM-GBPUSD": (1_30000, 5, 0.1),
    "SIM-GOLD": (4_000_00, 2, 0.3),
    "SIM-OIL": (70_00, 2, 0.5),
}


class Simulated(Provider):
    """Serves the symbols that begin with SIM-, and knows no other."""

    name = SIMULATED

    def plan(self, symbols: Sequence[str], *, singly: bool = False) -> list[Request]:
        """Return requests of up to 100 symbols."""
        return [
            Request(call="quotes", symbols=tuple(symbols[start : start + SYMBOLS_PER_REQUEST]))
            for start in range(0, len(symbols), SYMBOLS_PER_REQUEST)
        ]

    def fetch(self, request: Request) -> RawAnswer:
        """Answer for this second, without any network; unknown symbols are left out."""
        started = time.monotonic()
        received_at = datetime.now(UTC)
        second = int(received_at.timestamp())
        quotes = [
            {"symbol": symbol, "price": price_at(symbol, second), "time": second}
            for symbol in request.symbols
            if symbol.startswith(SIMULATED_PREFIX)
        ]
        return RawAnswer(
            provider=self.name,
            symbols=request.symbols,
            url=f"simulated:/quotes?{urlencode({'symbols': ','.join(request.symbols)})}",
            status=200,
            headers={"content-type": "application/json"},
            body=json.dumps({"quotes": quotes}).encode(),
            received_at=received_at,
            latency_ms=(time.monotonic() - started) * 1000,
        )

    def parse(self, answer: RawAnswer) -> Results:
        """Read the answer: prices in USD, times by the second."""
        return read_answer(answer, _open_answer)


def price_at(symbol: str, second: int) -> str:
    """Return the price in USD at an epoch second: two decimals, 8 to 575, or what a symbol's name says."""
    character = _character(symbol)
    swing = character.calm * sum(
        height * _wave(seed, second / length)
        for (length, height), seed in zip(_WAVES, character.phases, strict=True)
    )
    whole, rest = divmod(round(character.level * (1 + swing)), 10**character.decimals)
    return f"{whole}.{rest:0{character.decimals}d}"


@lru_cache(maxsize=4096)
def _character(symbol: str) -> _Character:
    phases = tuple(crc32(f"{symbol}/{length}".encode()) for length, _ in _WAVES)
    if symbol in _NAMED:
        level, decimals, calm = _NAMED[symbol]
        return _Character(level, phases, decimals, calm)
    return _Character(1_000 + crc32(symbol.encode()) % 49_000, phases)


def _wave(seed: int, position: float) -> float:
    left = int(position)
    share = position - left
    # Smoothstep: no corner where one wave ends and the next begins.
    share = share * share * (3 - 2 * share)
    return _height(seed, left) * (1 - share) + _height(seed, left + 1) * share


def _height(seed: int, index: int) -> float:
    # -1 to 1. The multipliers are those of Knuth and Murmur: neighbours must not look alike.
    mixed = (seed ^ (index * 2_654_435_761)) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 16)) / 0x7FFFFFFF - 1


def _open_answer(answer: RawAnswer) -> ReadQuote:
    if answer.status != 200:
        raise status_error(answer)
    quotes = read_object(answer.body).get("quotes")
    if not isinstance(quotes, list) or not all(isinstance(quote, dict) for quote in quotes):
        raise malformed("the answer has no list of quotes")
    rows: Rows[dict[str, Any]] = Rows(
        [(quote.get("symbol"), quote) for quote in quotes], asked=answer.symbols
    )
    return lambda symbol: _to_quote(symbol, rows.one(symbol), answer.received_at)


def _to_quote(symbol: str, row: dict[str, Any], received_at: datetime) -> Quote:
    price = row.get("price")
    if not isinstance(price, str):
        raise malformed("the price is missing")
    observed_at = to_time(row.get("time"), received_at)
    return Quote(
        symbol=symbol,
        price=to_price(price),
        observed_at=observed_at,
        precision="second" if observed_at else "unknown",
        currency="USD",
    )
