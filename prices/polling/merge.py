"""Jobs that are due together share their requests: who wants which symbol, and what each slot came to.

Pure: nothing here asks, stores or waits. The first slot that wants a symbol pays for it (`stored`); for the
others its price is `shared`. A slot is settled once each of its symbols has a price, or a reason why not.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from uuid import UUID

from prices.ledger.runs import Claim, RunOutcome
from prices.models import RunState

# A price that came so long ago answers a slot too, or a quarter of the slot's interval ago if that is less.
SHARED_UP_TO_S = 5.0
_GOLDEN = Fraction(618034, 1_000_000)


@dataclass(slots=True)
class Slot:
    """A claimed slot on its way to an outcome.

    `waiting` holds the symbols that have neither a price nor a reason yet, `deferred` those that the next
    provider is to be asked for, with what kept the earlier ones. `paid` and `shared` count the prices that
    were asked for on its account, and those that another slot or an earlier poll asked for. `tried`: the
    providers before this one. `asked`: at least one request was sent for it. `withheld`: the symbols that
    the provider's budget leaves out this time; it takes their prices where somebody else asks for them.
    """

    claim: Claim
    waiting: dict[str, None]
    deferred: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    paid: int = 0
    shared: int = 0
    tried: list[str] = field(default_factory=list)
    asked: bool = False
    withheld: list[str] = field(default_factory=list)
    served_by: str | None = None

    @property
    def is_settled(self) -> bool:
        """Return whether nothing of the slot is open any more."""
        return not self.waiting and not self.deferred

    def settle_deferred(self) -> None:
        """Leave it at what kept the earlier providers: no other one is asked."""
        self.missing |= self.deferred
        self.deferred = {}

    @property
    def outcome(self) -> RunOutcome:
        """Return what the slot came to."""
        points = self.paid + self.shared
        return RunOutcome(
            self.claim,
            self._state,
            reason=self._told(self.missing),
            error=self._told(
                {symbol: text for symbol, text in self.missing.items() if symbol not in self.withheld}
            ),
            points=points,
            # What the budget withholds is no failure of the job.
            counts=points > 0 or self.asked or not self.withheld,
            served_by=self.served_by if self.claim.job.provider is None else None,
        )

    @property
    def _state(self) -> RunState:
        if self.paid:
            return RunState.STORED
        if self.shared:
            return RunState.SHARED
        return RunState.FAILED if self.asked else RunState.SKIPPED

    def _told(self, reasons: Mapping[str, str]) -> str:
        texts = set(reasons.values())
        # Where nothing was asked for, for one reason, there is no need to name all symbols.
        return texts.pop() if self._state == RunState.SKIPPED and len(texts) == 1 else summary(reasons)


class Merged:
    """Slots that are polled together, at one provider; `by_symbol` gives those that want a symbol."""

    def __init__(self, slots: Iterable[Slot], *, provider: str) -> None:
        self.slots = list(slots)
        self.provider = provider
        self.by_symbol: dict[str, list[Slot]] = {}
        for slot in self.slots:
            for symbol in slot.waiting:
                self.by_symbol.setdefault(symbol, []).append(slot)

    @property
    def symbols(self) -> list[str]:
        """Return what is to be asked for: each symbol once."""
        return [symbol for symbol in self.by_symbol if self._paying_for(symbol)]

    def payer_of(self, symbol: str) -> Slot | None:
        """Return the slot on whose account the symbol is asked for: the first that may and waits for it."""
        return next(iter(self._paying_for(symbol)), None)

    def still_wanted(self, symbols: Sequence[str], *, active: set[UUID]) -> list[str]:
        """Return those of the symbols that an active job wants; the slots of other jobs give them up."""
        for symbol in symbols:
            for slot in self._waiting_for(symbol):
                if slot.claim.job.id not in active:
                    give_up(slot, [symbol], "not asked: the job was stopped")
        return [symbol for symbol in symbols if self._paying_for(symbol)]

    def note_asked(self, symbols: Iterable[str]) -> None:
        """Note that a request was sent for the symbols."""
        for symbol in symbols:
            for slot in self._paying_for(symbol):
                slot.asked = True

    def serve(self, symbol: str) -> None:
        """Give the symbol's price to all who wait for it; one of them paid for it."""
        payer = self.payer_of(symbol)
        for slot in self._waiting_for(symbol):
            serve(slot, symbol, provider=self.provider, paid=slot is payer)

    def share(self, symbol: str, *, age_s: float) -> None:
        """Give a price of others to the slots claimed before it came, or that take one of its age."""
        for slot in self._waiting_for(symbol):
            claimed_s_ago = time.monotonic() - slot.claim.claimed_at
            if age_s < max(claimed_s_ago, min(SHARED_UP_TO_S, slot.claim.job.interval / 4)):
                serve(slot, symbol, provider=self.provider, paid=False)

    def fail(self, symbol: str, reason: str, *, has_next: set[UUID]) -> None:
        """Settle the symbol without a price; for the runs that have a next provider it is put off."""
        for slot in self._paying_for(symbol):
            self.give_back(slot, [symbol], reason, has_next=has_next)

    def give_back(self, slot: Slot, symbols: Iterable[str], reason: str, *, has_next: set[UUID]) -> None:
        """Settle what one slot waits for without a price, or put it off if its run has a next provider."""
        # Several may be asked one after the other, each job its own: every reason says whose it is.
        text = f"{self.provider}: {reason}"
        waiting = [symbol for symbol in symbols if symbol in slot.waiting]
        give_up(slot, waiting, text)
        if slot.claim.run_id in has_next:
            slot.deferred |= {symbol: slot.missing.pop(symbol) for symbol in waiting}

    def take_settled(self) -> list[Slot]:
        """Return the slots that are settled, and part with them."""
        settled = [slot for slot in self.slots if slot.is_settled]
        self.slots = [slot for slot in self.slots if not slot.is_settled]
        return settled

    def _paying_for(self, symbol: str) -> list[Slot]:
        return [slot for slot in self._waiting_for(symbol) if symbol not in slot.withheld]

    def _waiting_for(self, symbol: str) -> list[Slot]:
        return [slot for slot in self.by_symbol.get(symbol, ()) if symbol in slot.waiting]


def serve(slot: Slot, symbol: str, *, provider: str, paid: bool) -> None:
    """Settle a symbol that the slot waits for with a price of the provider."""
    del slot.waiting[symbol]
    slot.missing.pop(symbol, None)
    slot.paid += paid
    slot.shared += not paid
    # The first that serves is kept: a later one helps out with single symbols.
    slot.served_by = slot.served_by or provider


def give_up(slot: Slot, symbols: Iterable[str], reason: str) -> None:
    """Settle symbols that the slot waits for without a price; what earlier providers said comes first."""
    for symbol in list(symbols):
        if symbol in slot.waiting:
            del slot.waiting[symbol]
            before = slot.missing.get(symbol)
            slot.missing[symbol] = f"{before}; {reason}" if before else reason


def in_turn(symbols: Sequence[str], *, slot: int) -> list[str]:
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
