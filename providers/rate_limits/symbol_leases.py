"""Leases: who is asking a provider for a symbol just now, known to all processes, and what it does not know.

Before a request its symbols are leased; once the answer is stored they are released. Between the two nobody
else asks for them, and who wants one of them waits for it. The lease of a killed process runs out.

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

from providers.rate_limits.redis_scripts import SharedStateError, call_script, key_base, under_way_ms

log = structlog.get_logger(__name__)

# Between the answer and its commit: were the lease over sooner, somebody would ask a second time.
STORED_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.02

_NAMES_LUA = """
local function lease(symbol) return ask.base .. ':lease:' .. symbol end
local function unknown(symbol) return ask.base .. ':unknown:' .. symbol end
"""

_TAKE = (
    _NAMES_LUA
    + """
local found = {}
for i, symbol in ipairs(ask.symbols) do
  local held_by = redis.call('GET', lease(symbol))
  if left(unknown(symbol)) > 0 then
    found[i] = 'unknown'
  elseif held_by and held_by ~= ask.lease and left_of(lease(symbol), ask.lasts) > 0 then
    found[i] = 'in_flight_elsewhere'
  else
    redis.call('SET', lease(symbol), ask.lease, 'PX', ask.lasts)
    found[i] = 'ours'
  end
end
return cjson.encode(found)
"""
)

_RELEASE = (
    _NAMES_LUA
    + """
for _, symbol in ipairs(ask.symbols) do
  if redis.call('GET', lease(symbol)) == ask.lease then redis.call('DEL', lease(symbol)) end
end
for _, symbol in ipairs(ask.unknown) do
  if ask.memory > 0 then keep_for(unknown(symbol), ask.memory) end
end
return '{}'
"""
)

_LEASED = (
    _NAMES_LUA
    + """
local count = 0
for _, symbol in ipairs(ask.symbols) do
  if left_of(lease(symbol), ask.lasts) > 0 then count = count + 1 end
end
return cjson.encode(count)
"""
)


@dataclass(frozen=True, slots=True)
class Leased:
    """Which symbols may be asked for now, which others are asking for, and which are known to be unknown."""

    ours: tuple[str, ...]
    in_flight_elsewhere: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """One poll's or caller's claim on symbols of a provider."""

    provider: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def take(self, symbols: Sequence[str]) -> Leased:
        """Claim the symbols that nobody else asks for; those that are ours already, for longer."""
        found = self._call(_TAKE, symbols, {"lasts": _lasts_ms()})
        by_state = [
            tuple(symbol for symbol, state in zip(symbols, found, strict=True) if state == wanted)
            for wanted in ("ours", "in_flight_elsewhere", "unknown")
        ]
        return Leased(*by_state)

    def release(self, symbols: Iterable[str], *, unknown: Collection[str] = ()) -> None:
        """Give the symbols up: what came is stored. Those among `unknown` are remembered.

        Does not raise where Redis is away: the lease then runs out.
        """
        memory_ms = settings.UNKNOWN_SYMBOL_MEMORY_S * 1000
        try:
            self._call(_RELEASE, list(symbols), {"unknown": list(unknown), "memory": memory_ms})
        except SharedStateError as error:
            log.warning("lease.not_released", provider=self.provider, reason=str(error))

    def wait_for_others(self, symbols: Sequence[str], *, deadline: float) -> bool:
        """Wait until nobody asks for the symbols; return False where `deadline` (monotonic) comes first."""
        while self._call(_LEASED, symbols, {"lasts": _lasts_ms()}):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def _call(self, script: str, symbols: Sequence[str], ask: dict[str, Any]) -> Any:
        ours = {"symbols": list(symbols), "lease": self.id, "base": key_base(self.provider)}
        return call_script(script, self.provider, ours | ask)


def _lasts_ms() -> int:
    return under_way_ms() + round(STORED_WITHIN_S * 1000)
