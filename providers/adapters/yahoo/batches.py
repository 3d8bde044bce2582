"""Whether calls for several symbols at once are refused just now, for all processes together.

Yahoo's quote call needs a crumb, and Yahoo may refuse that for hours. Each slot would cost the refused call,
new crumbs, and a chart for each symbol. So the call rests for a while after a refusal: each symbol is asked
for by itself at once, and plans count as many requests.
"""

import time

import structlog

from providers.rate_limits.redis_scripts import SharedStateError, call_script, key_base

log = structlog.get_logger(__name__)

# Then the call is tried again, which takes up to seven requests: one in twenty of Yahoo's budget.
REST_S = 300.0
# For so long a process goes on with what it knows, and where Redis is away.
_KNOWN_FOR_S = 1.0
_KNOWN_FOR_WHILE_AWAY_S = 5.0
# Whoever answers for several symbols at once, and may refuse to.
_ANSWERS_FOR_SEVERAL = frozenset({"yfinance"})

_READ = "return cjson.encode({left = left(batches)})"
_REST = "keep_for(batches, ask.wait) return '{}'"

# Under which name in Redis, until when by the monotonic clock, and what.
_known: tuple[str, float, bool] = ("", 0.0, False)


def asks_singly(provider: str) -> bool:
    """Return whether each symbol is asked for by itself; where Redis is away, what was known last."""
    global _known
    if provider not in _ANSWERS_FOR_SEVERAL:
        return False
    name, known_until, rests = _known
    is_known = name == key_base(provider)
    if is_known and time.monotonic() < known_until:
        return rests
    known_for_s = _KNOWN_FOR_S
    try:
        rests = bool(call_script(_READ, provider, {})["left"])
    except SharedStateError:
        rests, known_for_s = is_known and rests, _KNOWN_FOR_WHILE_AWAY_S
    _known = (key_base(provider), time.monotonic() + known_for_s, rests)
    return rests


def rest_batches(provider: str) -> None:
    """Let calls for several symbols rest; where Redis is away, in this process, until it is back."""
    global _known
    log.warning("provider.batches_rest", provider=provider, rest_s=REST_S)
    _known = (key_base(provider), time.monotonic() + _KNOWN_FOR_S, True)
    try:
        call_script(_REST, provider, {"wait": round(REST_S * 1000)})
    except SharedStateError as error:
        log.warning("provider.rest_not_shared", provider=provider, reason=str(error))
