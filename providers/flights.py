"""Flights: who is asking a provider for a symbol just now, known to all processes, and what it does not know.

Before a request its symbols take off; once the answer is stored they land. Between the two nobody else asks
for them, and who wants one of them waits for it. The flight of a process that was killed ends by itself.

Symbols that a provider does not know are remembered for UNKNOWN_SYMBOL_MEMORY_S, so that a wrong one does not
use up the budget. All of it is in Redis; functions raise SharedStateError where that is away.
"""

import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.conf import settings

from providers.shared_state import SharedStateError, call_script, key_base, under_way_ms

log = structlog.get_logger(__name__)

# Between the answer and its commit: a flight that ended sooner would be flown a second time.
STORED_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.02

_NAMES_LUA = """
local function flight(symbol) return ask.base .. ':flight:' .. symbol end
local function unknown(symbol) return ask.base .. ':unknown:' .. symbol end
"""

_TAKE_OFF = (
    _NAMES_LUA
    + """
local found = {}
for i, symbol in ipairs(ask.symbols) do
  local flown_by = redis.call('GET', flight(symbol))
  if redis.call('EXISTS', unknown(symbol)) == 1 then
    found[i] = 'unknown'
  elseif flown_by and flown_by ~= ask.flight then
    found[i] = 'elsewhere'
  else
    redis.call('SET', flight(symbol), ask.flight, 'PX', ask.lasts)
    found[i] = 'ours'
  end
end
return cjson.encode(found)
"""
)

_LAND = (
    _NAMES_LUA
    + """
for _, symbol in ipairs(ask.symbols) do
  if redis.call('GET', flight(symbol)) == ask.flight then redis.call('DEL', flight(symbol)) end
end
for _, symbol in ipairs(ask.unknown) do
  if ask.memory > 0 then redis.call('SET', unknown(symbol), '1', 'PX', ask.memory) end
end
return '{}'
"""
)

_IN_THE_AIR = (
    _NAMES_LUA
    + """
local count = 0
for _, symbol in ipairs(ask.symbols) do count = count + redis.call('EXISTS', flight(symbol)) end
return cjson.encode(count)
"""
)


@dataclass(frozen=True, slots=True)
class Clearance:
    """Which symbols may be asked for now, which others are asking for, and which are known to be unknown."""

    ours: tuple[str, ...]
    elsewhere: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flight:
    """One poll's or caller's claim on symbols of a provider."""

    provider: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def take_off(self, symbols: Sequence[str]) -> Clearance:
        """Claim the symbols that nobody else asks for; those that are ours already, for longer."""
        lasts_ms = under_way_ms() + round(STORED_WITHIN_S * 1000)
        found = self._call(_TAKE_OFF, symbols, {"lasts": lasts_ms})
        by_state = [
            tuple(symbol for symbol, state in zip(symbols, found, strict=True) if state == wanted)
            for wanted in ("ours", "elsewhere", "unknown")
        ]
        return Clearance(*by_state)

    def land(self, symbols: Iterable[str], *, unknown: Collection[str] = ()) -> None:
        """Give the symbols up: what came is stored. Those among `unknown` are remembered.

        Does not raise where Redis is away: the flight then ends by itself.
        """
        memory_ms = settings.UNKNOWN_SYMBOL_MEMORY_S * 1000
        try:
            self._call(_LAND, list(symbols), {"unknown": list(unknown), "memory": memory_ms})
        except SharedStateError as error:
            log.warning("flight.not_landed", provider=self.provider, reason=str(error))

    def wait_for_others(self, symbols: Sequence[str], *, until: float) -> bool:
        """Wait until nobody asks for the symbols, or the monotonic clock says `until`; tell which it was."""
        while self._call(_IN_THE_AIR, symbols, {}):
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def _call(self, script: str, symbols: Sequence[str], ask: dict[str, Any]) -> Any:
        ours = {"symbols": list(symbols), "flight": self.id, "base": key_base(self.provider)}
        return call_script(script, self.provider, ours | ask)
