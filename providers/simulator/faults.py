"""What the simulator does wrong: the settings of one provider's faults, checked before they count."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from providers.rate_limits.limits import NO_LIMIT, parse_limits


class ErrorMode(StrEnum):
    """How a request goes wrong; ANY is one of the others by chance."""

    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    HTML = "html"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    RESET = "reset"
    HANG = "hang"
    ANY = "any"


class FaultsError(ValueError):
    """Faults that cannot be set; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one provider; as made, there are none.

    latency_s     seconds until each answer begins
    jitter_s      up to so many seconds more, by chance
    error_rate    share of the requests that go wrong by chance, 0 to 1
    error         how they go wrong: an ErrorMode
    rate_limit    limits such as "1/1s,25/1d"; "none" is no limit
    invalid_key   every key is refused
    not_entitled  the plan includes no symbol
    stale_s       each price, and the time told with it, is of so many whole seconds ago
    outage        every connection is closed without an answer
    """

    latency_s: float = 0
    jitter_s: float = 0
    error_rate: float = 0
    error: str = ErrorMode.BAD_GATEWAY.value
    rate_limit: str = NO_LIMIT
    invalid_key: bool = False
    not_entitled: bool = False
    stale_s: int = 0
    outage: bool = False

    def changed(self, changes: Mapping[str, object]) -> "Faults":
        """Return these faults with some of them changed; raises FaultsError with all that is wrong."""
        problems = [problem for name, value in changes.items() if (problem := _problem(name, value))]
        if problems:
            raise FaultsError(problems)
        return replace(self, **changes)  # type: ignore[arg-type]  # each value was checked above

    def as_dict(self) -> dict[str, object]:
        """Return the faults by their names, as JSON takes them."""
        return asdict(self)


def read_number(text: str) -> object:
    """Return the number that a text is, else the text, so that `Faults.changed` can say what is wrong."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _problem(name: str, value: object) -> str | None:
    if name not in _RULES:
        return f"{name[:40]!r} is no fault: there are {', '.join(_RULES)}"
    allows, allowed = _RULES[name]
    if allows(value):
        return None
    return f"{name} must be {allowed}, not {_shown(value)}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _number(highest: float, *, whole: bool = False) -> Callable[[object], bool]:
    kinds = int if whole else (int, float)
    # True is an int in Python, and NaN is between nothing.
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= highest


def _is_limit(value: object) -> bool:
    try:
        return isinstance(value, str) and parse_limits(value) is not None
    except ValueError:
        return False


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


_SWITCH = (_is_bool, "true or false")
_SECONDS = (_number(600), "a number of seconds from 0 to 600")
# Which values each fault takes, and how that is said.
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "latency_s": _SECONDS,
    "jitter_s": _SECONDS,
    "error_rate": (_number(1), "a number from 0 to 1"),
    "error": (lambda value: value in list(ErrorMode), f"one of {', '.join(ErrorMode)}"),
    "rate_limit": (
        _is_limit,
        "limits such as 60/1m or 1/1s,25/1d (units ms, s, m, h, d; 31d at most), or none",
    ),
    "invalid_key": _SWITCH,
    "not_entitled": _SWITCH,
    "stale_s": (_number(31_536_000, whole=True), "a whole number of seconds from 0 to 31536000"),
    "outage": _SWITCH,
}
