"""A provider's rate limit, as the provider counts it."""

import math
from bisect import bisect_left
from dataclasses import dataclass

from providers.rate_limits.limits import Limit


@dataclass(frozen=True, slots=True)
class Standing:
    """How a request stands with the limits.

    `limit` is the one that refuses it, else the one of the longest window; `remaining` requests of
    that one are left, and at `resets_at` (epoch seconds) all of them are, if none follows.
    """

    is_refused: bool
    limit: Limit
    remaining: int
    resets_at: int


class RateCounter:
    """Counts requests in windows that begin anywhere, so it is as strict as a limit can be.

    A refused request is not counted: waiting until a window has room again is enough.
    """

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self._limits = sorted(limits, key=lambda limit: limit.window_s, reverse=True)
        self._kept = max((limit.requests for limit in limits), default=0)
        self._accepted: list[float] = []

    def count(self, now: float) -> Standing | None:
        """Count a request at an epoch second unless it is refused; None where there is no limit."""
        if not self._limits:
            return None
        # Of several limits that refuse, the one of the longest window: no other wait helps.
        full = next((limit for limit in self._limits if self._left(limit, now) == 0), None)
        if full is None:
            self._accept(now)
        limit = full or self._limits[0]
        return Standing(
            is_refused=full is not None,
            limit=limit,
            remaining=self._left(limit, now),
            resets_at=math.ceil(self._accepted[-1] + limit.window_s),
        )

    def _left(self, limit: Limit, now: float) -> int:
        used = len(self._accepted) - bisect_left(self._accepted, now - limit.window_s)
        return max(limit.requests - used, 0)

    def _accept(self, now: float) -> None:
        # In order also where the clock was set back.
        self._accepted.append(max(now, self._accepted[-1]) if self._accepted else now)
        if len(self._accepted) > 2 * self._kept:
            del self._accepted[: -self._kept]
