"""What the simulator does with a request: it is noted, counted against the limit, and answered or not."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from providers.rate_limits.limits import parse_limits
from providers.simulator.alpha_vantage import AlphaVantageDialect
from providers.simulator.answers import OUTAGE, Answer, Ask, Dialect, gone_wrong
from providers.simulator.faults import ErrorMode, Faults
from providers.simulator.finnhub import FinnhubDialect
from providers.simulator.log import Received, RequestLog
from providers.simulator.rate import RateCounter, Standing
from providers.simulator.yahoo import YahooDialect

DIALECTS: tuple[Dialect, ...] = (FinnhubDialect(), AlphaVantageDialect(), YahooDialect())
PROVIDERS = tuple(dialect.name for dialect in DIALECTS)

_MODES = [mode for mode in ErrorMode if mode != ErrorMode.ANY]


class Engine:
    """The providers' state: faults, counts, and the log of requests. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log = RequestLog()
        self._desks = {dialect.name: _Desk(dialect) for dialect in DIALECTS}

    def answer(self, provider: str, ask: Ask) -> tuple[Answer, float]:
        """Note a request that came just now; return its answer, and the seconds until that is to begin."""
        with self._lock:
            now = time.time()
            desk = self._desks[provider]
            answer = desk.answer(ask, now)
            status = answer.status if answer.is_sent else None
            self._log.add(Received(now, provider, ask.symbol, status, answer.outcome))
            return answer, desk.delay_s()

    def faults(self) -> dict[str, Faults]:
        """Return each provider's faults."""
        with self._lock:
            return {name: desk.faults for name, desk in self._desks.items()}

    def change(self, changes: Mapping[str, object], *, provider: str | None = None) -> None:
        """Change faults of one provider, or of all; raises FaultsError, and then none is changed.

        A rate limit begins to count anew whenever it is set.
        """
        with self._lock:
            desks = [desk for name, desk in self._desks.items() if provider in {None, name}]
            changed = [desk.faults.changed(changes) for desk in desks]
            for desk, faults in zip(desks, changed, strict=True):
                desk.set(faults, counts_anew="rate_limit" in changes)

    def requests(self) -> tuple[list[Received], dict[str, Counter[str]]]:
        """Return the requests that are kept, oldest first, and the counts of all by provider and outcome."""
        with self._lock:
            return self._log.newest(), self._log.counts()

    def forget_requests(self) -> None:
        """Empty the log and its counts; what counts against a rate limit stays."""
        with self._lock:
            self._log.clear()


class _Desk:
    """One provider. Its owner locks."""

    def __init__(self, dialect: Dialect) -> None:
        self.faults = Faults()
        self._dialect = dialect
        self._rate = RateCounter(())
        self._chance = random.Random()  # noqa: S311  # nothing secret hangs on it

    def set(self, faults: Faults, *, counts_anew: bool) -> None:
        self.faults = faults
        if counts_anew:
            self._rate = RateCounter(parse_limits(faults.rate_limit))

    def delay_s(self) -> float:
        return self.faults.latency_s + self._chance.uniform(0, self.faults.jitter_s)

    def answer(self, ask: Ask, now: float) -> Answer:
        if self.faults.outage:
            return OUTAGE
        if not ask.key.strip():
            return self._dialect.blank_key()
        if self.faults.invalid_key:
            return self._dialect.invalid_key()
        # What goes wrong afterwards has been counted all the same: no client may rely on the contrary.
        standing = self._rate.count(now)
        return self._counted(ask, now, standing)

    def _counted(self, ask: Ask, now: float, standing: Standing | None) -> Answer:
        if standing is None:
            return self._by_chance(self._served(ask, now))
        if standing.is_refused:
            answer = self._dialect.rate_limited(ask, standing)
        else:
            answer = self._by_chance(self._served(ask, now))
        return replace(answer, headers={**answer.headers, **self._dialect.standing_headers(standing)})

    def _served(self, ask: Ask, now: float) -> Answer:
        other = self._dialect.in_place_of_quote(ask)
        if other is not None:
            return other
        if self.faults.not_entitled:
            return self._dialect.not_entitled()
        if not self._dialect.knows(ask):
            return self._dialect.unknown_symbol(ask)
        return self._dialect.quote(ask, int(now) - self.faults.stale_s)

    def _by_chance(self, good: Answer) -> Answer:
        if self._chance.random() >= self.faults.error_rate:
            return good
        mode = ErrorMode(self.faults.error)
        return gone_wrong(self._chance.choice(_MODES) if mode == ErrorMode.ANY else mode, good)
