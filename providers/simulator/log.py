"""The requests that came: the newest of them one by one, and all of them counted."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

# Some 20 MB; a day at one request a second.
KEPT = 86_400
# What is longer is no symbol.
_MAX_SYMBOL_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Received:
    """One request: when it came (epoch seconds), for what, and what it got.

    `status` is None where no whole answer was sent. `outcome` says why: quote, unknown_symbol,
    rate_limited, invalid_key, not_entitled, bad_request, outage, or the error that was simulated.
    """

    time: float
    provider: str
    symbol: str
    status: int | None
    outcome: str

    def as_dict(self) -> dict[str, object]:
        """Return the request as JSON takes it."""
        return asdict(self)


class RequestLog:
    """Keeps the newest 86,400 requests, and counts all. Not safe for threads: its owner locks."""

    def __init__(self) -> None:
        self._newest: deque[Received] = deque(maxlen=KEPT)
        self._counts: dict[str, Counter[str]] = {}

    def add(self, received: Received) -> None:
        """Note a request."""
        self._newest.append(replace(received, symbol=received.symbol[:_MAX_SYMBOL_LENGTH]))
        self._counts.setdefault(received.provider, Counter())[received.outcome] += 1

    def newest(self) -> list[Received]:
        """Return the requests that are kept, oldest first."""
        return list(self._newest)

    def counts(self) -> dict[str, Counter[str]]:
        """Return the numbers of all requests, by provider and outcome."""
        return {provider: Counter(outcomes) for provider, outcomes in self._counts.items()}

    def clear(self) -> None:
        """Forget all requests and counts."""
        self._newest.clear()
        self._counts.clear()


def summary(requests: Iterable[Received], counts: dict[str, Counter[str]]) -> dict[str, object]:
    """Return the counts of each provider, with its busiest second and minute among the requests given."""
    times: dict[str, list[float]] = {}
    for received in requests:
        times.setdefault(received.provider, []).append(received.time)
    return {
        provider: {
            "requests": outcomes.total(),
            "outcomes": dict(outcomes),
            "busiest_second": busiest_window(times.get(provider, []), window_s=1),
            "busiest_minute": busiest_window(times.get(provider, []), window_s=60),
        }
        for provider, outcomes in counts.items()
    }


def busiest_window(times: Iterable[float], *, window_s: float) -> int:
    """Return the most times that lie within so many seconds of each other, both ends included."""
    inside: deque[float] = deque()
    most = 0
    for time in sorted(times):
        inside.append(time)
        while inside[0] < time - window_s:
            inside.popleft()
        most = max(most, len(inside))
    return most
