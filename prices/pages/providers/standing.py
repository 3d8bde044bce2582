"""How each provider stands: its key, its breaker, and what is left of its budget."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from django.conf import settings

from providers.rate_limits.breaker import BreakerState, breaker_state
from providers.rate_limits.budget import Remaining, WindowUse, limits_of, remaining, reserved_for_latest
from providers.rate_limits.limits import Limit, in_words, time_in_words
from providers.rate_limits.permits import is_metered
from providers.rate_limits.redis_scripts import SharedStateError
from providers.registry import key_setting, missing_setting

# A Redis that answers slowly is asked for some of them, and the page is there.
ASKED_FOR_S = 1.0

# What a reader has to know first, where several are true.
State = Literal["no_key", "unknown", "unmetered", "open", "half_open", "held", "failing", "unasked", "works"]
_LOOKS = {"works": "fresh", "unmetered": "fresh", "open": "stale", "unknown": "stale"}
_QUIET = {"no_key", "unasked"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a budget's bar, in percent of the limit: where it begins, and how long it is."""

    name: str
    begins: str
    length: str


@dataclass(frozen=True, slots=True)
class BudgetBar:
    """One limit, in words, and how much of it is used; what is reserved for GET latest is not left for jobs.

    `refills` is when the oldest request leaves the window, in words; None: nothing is used.
    """

    limit: str
    used: int
    by_latest: int
    reserved: int
    left: int
    refills: str | None
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a provider stands. `wait` is how long nothing is sent, in words; None where that is not so.

    `key` is the setting that holds its key, None where it needs none. `bars` is None where what is used is
    not known; `limits` are its limits in words. `away` says why Redis tells nothing.
    """

    provider: str
    key: str | None
    is_missing_key: bool
    state: State
    wait: str | None
    breaker: BreakerState | None
    opens_after: int
    limits: Sequence[str]
    bars: Sequence[BudgetBar] | None
    away: str | None

    @property
    def look(self) -> str:
        """The colour of its state, as the freshness of a price has it."""
        return "unknown" if self.state in _QUIET else _LOOKS.get(self.state, "delayed")


def read_standings(providers: Sequence[str]) -> list[Standing]:
    """Return how each provider stands. Redis may be away: that takes little over a second in all."""
    began, standings, away = time.monotonic(), [], None
    for name in providers:
        found = _NOT_ASKED
        # It may be one provider's keys alone that cannot be read.
        is_late = time.monotonic() - began > ASKED_FOR_S
        if is_metered(name) and not (away and is_late):
            found, away = _ask(name)
        standings.append(_standing(name, *found, away=away if is_metered(name) else None))
    return standings


_Found = tuple[BreakerState | None, Remaining | None]
_NOT_ASKED: _Found = (None, None)


def _ask(provider: str) -> tuple[_Found, str | None]:
    try:
        return (breaker_state(provider), remaining(provider)), None
    except SharedStateError as error:
        return _NOT_ASKED, str(error)


def _standing(
    name: str, breaker: BreakerState | None, left: Remaining | None, *, away: str | None
) -> Standing:
    limits = limits_of(name)
    is_missing_key = missing_setting(name) is not None
    wait_s = max(breaker.retry_after_s if breaker else 0, left.held_for_s if left else 0)
    windows = left.windows if left else None
    return Standing(
        provider=name,
        key=key_setting(name),
        is_missing_key=is_missing_key,
        state="no_key" if is_missing_key else _state(breaker, left, is_metered=is_metered(name)),
        wait=time_in_words(ceil(wait_s)) if wait_s else None,
        breaker=breaker,
        opens_after=settings.BREAKER_FAILURES,
        limits=[in_words(limit) for limit in limits],
        bars=None
        if windows is None
        else [_bar(limit, use) for limit, use in zip(limits, windows, strict=True)],
        away=away,
    )


def _state(breaker: BreakerState | None, left: Remaining | None, *, is_metered: bool) -> State:
    if not is_metered:
        return "unmetered"
    if breaker is None or left is None:
        return "unknown"
    if breaker.state != "closed":
        return breaker.state
    if left.held_for_s:
        return "held"
    if breaker.failures:
        return "failing"
    is_seen = breaker.last_success or breaker.last_error_at
    return "works" if is_seen else "unasked"


def _bar(limit: Limit, use: WindowUse) -> BudgetBar:
    reserved = min(max(reserved_for_latest(limit) - use.by_latest, 0), use.left)
    lengths = {
        "jobs": min(use.used, use.limit) - min(use.by_latest, use.limit),
        "latest": min(use.by_latest, use.limit),
        "reserved": reserved,
    }
    return BudgetBar(
        limit=in_words(limit),
        used=use.used,
        by_latest=use.by_latest,
        reserved=reserved,
        left=use.left,
        refills=time_in_words(ceil(use.resets_in_s)) if use.used else None,
        parts=list(_parts(lengths, limit=use.limit)),
    )


def _parts(lengths: dict[str, int], *, limit: int) -> list[Part]:
    parts, end = [], 0
    for name, length in lengths.items():
        parts.append(Part(name, f"{100 * end / limit:.2f}%", f"{100 * length / limit:.2f}%"))
        end += length
    return parts
