"""Jobs that are due together share their requests: who wants which symbol, and what each run came to.

Pure: nothing here asks, stores or waits. The first run that wants a symbol pays for it (`stored`); for the
others its price is `shared`. A run is resolved once each of its symbols has a price, or a reason why not.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from uuid import UUID

from prices.ledger.market_hours import symbols_at
from prices.ledger.runs import Claim, RunOutcome
from prices.models import RunState

# A price that came so long ago answers a run too, or a quarter of its job's interval ago if that is less.
SHARED_UP_TO_S = 5.0
# Of a symbol whose market is closed, while another one of the job is open.
MARKET_CLOSED = "market_closed: not asked for outside its market's hours"
_GOLDEN = Fraction(618034, 1_000_000)


@dataclass(slots=True)
class PendingRun:
    """The run of a claimed slot on its way to an outcome.

    `waiting` holds the symbols that have neither a price nor a reason yet, `deferred` those that the next
    provider is to be asked for, with what kept the earlier ones. `fetched` and `shared` count the prices that
    it asked for itself, and those that another run or an earlier poll asked for. `tried`: the
    providers before this one. `asked`: at least one request was sent for it. `over_budget`: the symbols that
    the provider's budget leaves out this time; it takes their prices where somebody else asks for them.
    """

    claim: Claim
    waiting: dict[str, None]
    deferred: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    fetched: int = 0
    shared: int = 0
    tried: list[str] = field(default_factory=list)
    asked: bool = False
    over_budget: list[str] = field(default_factory=list)
    served_by: str | None = None

    @classmethod
    def of(cls, claim: Claim) -> "PendingRun":
        """Return the run of a claim as it begins: it waits for the symbols that are polled at its slot."""
        waiting = dict.fromkeys(symbols_at(claim.job, claim.due_at))
        closed = {symbol: MARKET_CLOSED for symbol in claim.job.symbols if symbol not in waiting}
        return cls(claim, waiting, missing=closed)

    @property
    def is_resolved(self) -> bool:
        """Return whether nothing of the run is open any more."""
        return not self.waiting and not self.deferred

    def resolve_deferred(self) -> None:
        """Leave it at what kept the earlier providers: no other one is asked."""
        self.missing |= self.deferred
        self.deferred = {}

    @property
    def outcome(self) -> RunOutcome:
        """Return what the run came to."""
        points = self.fetched + self.shared
        return RunOutcome(
            self.claim,
            self._state,
            reason=self._text_of(self.missing),
            error=self._text_of(
                {
                    symbol: text
                    for symbol, text in self.missing.items()
                    if symbol not in self.over_budget and text != MARKET_CLOSED
                }
            ),
            points=points,
            # What the budget withholds is no failure of the job.
            counts=points > 0 or self.asked or not self.over_budget,
            served_by=self.served_by if self.claim.job.provider is None else None,
        )

    @property
    def _state(self) -> RunState:
        if self.fetched:
            return RunState.STORED
        if self.shared:
            return RunState.SHARED
        return RunState.FAILED if self.asked else RunState.SKIPPED

    def _text_of(self, reasons: Mapping[str, str]) -> str:
        texts = set(reasons.values())
        # Where nothing was asked for, for one reason, there is no need to name all symbols.
        return texts.pop() if self._state == RunState.SKIPPED and len(texts) == 1 else summary(reasons)


class MergedPoll:
    """Slots that are polled together, at one provider; `by_symbol` gives those that want a symbol."""

    def __init__(self, runs: Iterable[PendingRun], *, provider: str) -> None:
        self.runs = list(runs)
        self.provider = provider
        self.by_symbol: dict[str, list[PendingRun]] = {}
        for run in self.runs:
            for symbol in run.waiting:
                self.by_symbol.setdefault(symbol, []).append(run)

    @property
    def symbols(self) -> list[str]:
        """Return what is to be asked for: each symbol once."""
        return [symbol for symbol in self.by_symbol if self._requesters(symbol)]

    def requester_of(self, symbol: str) -> PendingRun | None:
        """Return the run that the symbol is asked for by: the first that may and waits for it."""
        return next(iter(self._requesters(symbol)), None)

    def still_wanted(self, symbols: Sequence[str], *, active: set[UUID]) -> list[str]:
        """Return those of the symbols that an active job wants; the runs of other jobs give them up."""
        for symbol in symbols:
            for run in self._waiting_for(symbol):
                if run.claim.job.id not in active:
                    resolve_without_price(run, [symbol], "not asked: the job was stopped")
        return [symbol for symbol in symbols if self._requesters(symbol)]

    def note_asked(self, symbols: Iterable[str]) -> None:
        """Note that a request was sent for the symbols."""
        for symbol in symbols:
            for run in self._requesters(symbol):
                run.asked = True

    def serve(self, symbol: str) -> None:
        """Give the symbol's price to all who wait for it; one of them asked for it."""
        requester = self.requester_of(symbol)
        for run in self._waiting_for(symbol):
            serve(run, symbol, provider=self.provider, fetched=run is requester)

    def share(self, symbol: str, *, age_s: float) -> None:
        """Give a price of others to the runs claimed before it came, or that take one of its age."""
        for run in self._waiting_for(symbol):
            claimed_s_ago = time.monotonic() - run.claim.claimed_at
            if age_s < max(claimed_s_ago, min(SHARED_UP_TO_S, run.claim.job.interval / 4)):
                serve(run, symbol, provider=self.provider, fetched=False)

    def fail(self, symbol: str, reason: str, *, has_next: set[UUID]) -> None:
        """Resolve the symbol without a price; for the runs that have a next provider it is put off."""
        for run in self._requesters(symbol):
            self.give_back(run, [symbol], reason, has_next=has_next)

    def give_back(self, run: PendingRun, symbols: Iterable[str], reason: str, *, has_next: set[UUID]) -> None:
        """Resolve what one run waits for without a price, or put it off if its run has a next provider."""
        # Several may be asked one after the other, each job its own: every reason says whose it is.
        text = f"{self.provider}: {reason}"
        waiting = [symbol for symbol in symbols if symbol in run.waiting]
        resolve_without_price(run, waiting, text)
        if run.claim.run_id in has_next:
            run.deferred |= {symbol: run.missing.pop(symbol) for symbol in waiting}

    def take_resolved(self) -> list[PendingRun]:
        """Return the runs that are resolved, and part with them."""
        resolved = [run for run in self.runs if run.is_resolved]
        self.runs = [run for run in self.runs if not run.is_resolved]
        return resolved

    def _requesters(self, symbol: str) -> list[PendingRun]:
        return [run for run in self._waiting_for(symbol) if symbol not in run.over_budget]

    def _waiting_for(self, symbol: str) -> list[PendingRun]:
        return [run for run in self.by_symbol.get(symbol, ()) if symbol in run.waiting]


def serve(run: PendingRun, symbol: str, *, provider: str, fetched: bool) -> None:
    """Resolve a symbol that the run waits for with a price of the provider."""
    del run.waiting[symbol]
    run.missing.pop(symbol, None)
    run.fetched += fetched
    run.shared += not fetched
    # The first that serves is kept: a later one helps out with single symbols.
    run.served_by = run.served_by or provider


def resolve_without_price(run: PendingRun, symbols: Iterable[str], reason: str) -> None:
    """Resolve symbols that the run waits for without a price; what earlier providers said comes first."""
    for symbol in list(symbols):
        if symbol in run.waiting:
            del run.waiting[symbol]
            before = run.missing.get(symbol)
            run.missing[symbol] = f"{before}; {reason}" if before else reason


def rotate(symbols: Sequence[str], *, slot: int) -> list[str]:
    """Return the symbols from another one on at each slot: a poll that ends early omits others each time.

    The steps are a golden section of the list, so that the starts of a few slots lie well apart.
    """
    start = int(slot * _GOLDEN * len(symbols)) % len(symbols) if symbols else 0
    return [*symbols[start:], *symbols[:start]]


def summary(reasons: Mapping[str, str]) -> str:
    """Return reasons by symbol as one text: each reason once, after its symbols."""
    by_text: dict[str, list[str]] = {}
    for symbol, text in reasons.items():
        by_text.setdefault(text, []).append(symbol)
    return "; ".join(f"{', '.join(symbols)}: {text}" for text, symbols in by_text.items())
