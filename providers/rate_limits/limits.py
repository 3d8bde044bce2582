"""Limits of a provider: as settings write them, and as the headers of its answers tell them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

NO_LIMIT = "none"

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_RULE = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,5})(ms|s|m|h|d)")
_LONGEST_S = 31 * 86_400
_NUMBER = re.compile(r"[0-9]{1,12}")
# Names of lengths of time, the longest first: of a limit's window, and of an interval.
_WINDOWS_MS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1000, "millisecond": 1}
_LIMIT, _LEFT = "x-ratelimit-limit", "x-ratelimit-remaining"
_SHORT_S = {"d": 86_400, "h": 3600, "min": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Limit:
    """No window of `window_s` seconds, wherever it begins, holds more than `requests` requests."""

    requests: int
    window_s: float

    @property
    def window_ms(self) -> int:
        """The window in whole milliseconds."""
        return round(self.window_s * 1000)

    def __str__(self) -> str:
        # As settings write it: the largest unit that leaves a whole number.
        units_ms = {name: round(unit_s * 1000) for name, unit_s in _UNITS_S.items()}
        name = max(
            (name for name, ms in units_ms.items() if self.window_ms % ms == 0), key=units_ms.__getitem__
        )
        return f"{self.requests}/{self.window_ms // units_ms[name]}{name}"


def in_words(limit: Limit) -> str:
    """Return a limit as people say it: `25 requests a day`, `5 requests in 10 minutes`."""
    return f"{limit.requests:,} request{'s' * (limit.requests != 1)} {window_in_words(limit)}"


def window_in_words(limit: Limit) -> str:
    """Return a limit's window as people say it: `a day`, `in 10 minutes`."""
    name, name_ms = next((name, ms) for name, ms in _WINDOWS_MS.items() if limit.window_ms % ms == 0)
    count = limit.window_ms // name_ms
    if count > 1:
        return f"in {count} {name}s"
    return f"an {name}" if name == "hour" else f"a {name}"


def time_in_words(seconds: int) -> str:
    """Return whole seconds as people say them, with nothing left out: `45 min`, `2 h 24 min`, `1 d`."""
    parts = []
    for name, unit_s in _SHORT_S.items():
        count, seconds = divmod(seconds, unit_s)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts) or "0 s"


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Read limits: "1/1s,25/1d" is 1 request in 1 s and 25 in a day (ms, s, m, h, d), "none" is no limit.

    Raises ValueError with a text that says what is allowed.
    """
    if text.strip().lower() == NO_LIMIT:
        return ()
    return tuple(_parse_limit(part.strip()) for part in text.split(","))


def binding_limit(limits: Sequence[Limit]) -> Limit | None:
    """Return the limit that holds back most in the long run: of the lowest rate; None where there is none."""
    return min(limits, key=lambda each: (each.requests / each.window_s, -each.window_s), default=None)


def usage_from_headers(
    limits: Sequence[Limit], headers: Mapping[str, str], received_at: datetime
) -> dict[str, int] | None:
    """Return the requests that the provider has counted in a window, by the x-ratelimit headers; else None.

    They name a number of requests and no window. So they count for the one limit of that number, or for the
    only limit where they name none; of any other number (see `unknown_limit`) or of several limits with the
    same one the window is not known, and a count for a wrong one would be worse than none.
    """
    left, named_limit = (_number(headers, name) for name in (_LEFT, _LIMIT))
    meant = [limit for limit in limits if named_limit in {None, limit.requests}]
    if left is None or len(meant) != 1 or (named_limit is None and headers.get(_LIMIT)):
        return None
    (limit,) = meant
    return {
        "used": limit.requests - left,
        "window": limit.window_ms,
        "resets_in": _resets_in_ms(limit, _number(headers, "x-ratelimit-reset"), received_at),
    }


def unknown_limit(limits: Sequence[Limit], headers: Mapping[str, str]) -> int | None:
    """Return the number of requests that the x-ratelimit headers name, where no limit has it; else None."""
    named_limit = _number(headers, _LIMIT)
    return named_limit if limits and named_limit not in {limit.requests for limit in limits} else None


def _parse_limit(part: str) -> Limit:
    rule = _RULE.fullmatch(part)
    window_s = int(rule[2]) * _UNITS_S[rule[3]] if rule else 0
    if rule is None or window_s > _LONGEST_S:
        raise ValueError(f"{part!r} is no limit: write 1/1s,25/1d (units s, m, h, d; 31d at most) or none")
    return Limit(int(rule[1]), window_s)


def _resets_in_ms(limit: Limit, reset_epoch: int | None, received_at: datetime) -> int:
    if reset_epoch is not None:
        resets_in_ms = round((reset_epoch - received_at.timestamp()) * 1000)
        if 0 < resets_in_ms <= limit.window_ms:
            return resets_in_ms
    return limit.window_ms


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "").strip()
    return int(text) if _NUMBER.fullmatch(text) else None
