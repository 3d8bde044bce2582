import uuid
from datetime import UTC, datetime
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from prices.ledger.runs import Claim
from prices.models import PollJob, RunState
from prices.polling.merge import MergedPoll, PendingRun, resolve_without_price, rotate, summary

SYMBOLS = st.lists(st.sampled_from("ABCDEF"), min_size=1, max_size=4, unique=True)


def make_slot(*symbols: str, provider: str | None = "finnhub") -> PendingRun:
    job = PollJob(id=uuid.uuid4(), symbols=list(symbols), interval=60, provider=provider)
    return PendingRun(Claim(uuid.uuid4(), job, datetime.now(UTC), 0.0), dict.fromkeys(symbols))


def merge(*slots: PendingRun) -> MergedPoll:
    return MergedPoll(slots, provider="finnhub")


def test_symbol_wanted_twice_is_asked_for_once_and_shared() -> None:
    first, second = make_slot("A", "B"), make_slot("B")
    merged = merge(first, second)
    assert merged.symbols == ["A", "B"]
    merged.note_asked(["A", "B"])
    merged.serve("A")
    merged.serve("B")
    assert merged.take_resolved() == [first, second]
    assert (first.outcome.state, first.outcome.points) == (RunState.STORED, 2)
    assert (second.outcome.state, second.outcome.points) == (RunState.SHARED, 1)


def test_slot_without_any_price_failed_if_it_was_asked_for() -> None:
    asked, refused = make_slot("A"), make_slot("B")
    merged = merge(asked, refused)
    merged.note_asked(["A"])
    merged.fail("A", "down", has_next=set())
    merged.fail("B", "budget: used up", has_next=set())
    assert (asked.outcome.state, asked.outcome.reason) == (RunState.FAILED, "A: finnhub: down")
    assert (refused.outcome.state, refused.outcome.reason) == (RunState.SKIPPED, "finnhub: budget: used up")


def test_slot_of_stopped_job_gives_up_what_is_not_asked_yet() -> None:
    stopped, running = make_slot("A", "B"), make_slot("B", "C")
    merged = merge(stopped, running)
    merged.note_asked(["A"])
    assert merged.still_wanted(["B", "C"], active={running.claim.job.id}) == ["B", "C"]
    assert merged.requester_of("B") is running
    merged.serve("A")
    assert stopped.outcome.reason == "B: not asked: the job was stopped"
    assert stopped.outcome.state == RunState.STORED


def test_failure_of_a_job_without_provider_is_deferred_with_its_reason() -> None:
    slot = make_slot("A", "B", provider=None)
    merged = merge(slot)
    merged.note_asked(["A", "B"])
    merged.serve("A")
    merged.fail("B", "unknown", has_next={slot.claim.run_id})
    assert merged.take_resolved() == []
    assert slot.deferred == {"B": "finnhub: unknown"}
    going_on = PendingRun(
        slot.claim, {"B": None}, missing=dict(slot.deferred), fetched=1, served_by="finnhub"
    )
    MergedPoll([going_on], provider="yfinance").fail("B", "down", has_next=set())
    assert going_on.outcome.reason == "B: finnhub: unknown; yfinance: down"
    assert going_on.outcome.served_by == "finnhub"


def test_served_by_is_told_only_for_jobs_without_provider() -> None:
    named, unnamed = make_slot("A"), make_slot("A", provider=None)
    merge(named, unnamed).serve("A")
    assert (named.outcome.served_by, unnamed.outcome.served_by) == (None, "finnhub")


def test_what_the_budget_withholds_is_no_failure_and_is_not_asked_for() -> None:
    slot = make_slot("A")
    slot.over_budget = ["A"]
    merged = merge(slot)
    assert merged.symbols == []
    resolve_without_price(slot, ["A"], "budget: one slot in 12")
    assert (slot.outcome.state, slot.outcome.reason) == (RunState.SKIPPED, "budget: one slot in 12")
    assert not slot.outcome.counts


def test_slot_takes_a_withheld_price_that_another_asks_for() -> None:
    poor, rich = make_slot("A"), make_slot("A")
    poor.over_budget = ["A"]
    merged = merge(poor, rich)
    assert merged.requester_of("A") is rich
    merged.note_asked(["A"])
    merged.serve("A")
    assert (poor.outcome.state, rich.outcome.state) == (RunState.SHARED, RunState.STORED)


def test_failure_of_a_request_is_not_that_of_a_slot_that_did_not_ask() -> None:
    poor, rich = make_slot("A"), make_slot("A")
    poor.over_budget = ["A"]
    merged = merge(poor, rich)
    merged.note_asked(["A"])
    merged.fail("A", "down", has_next=set())
    assert (rich.outcome.state, list(poor.waiting)) == (RunState.FAILED, ["A"])


@given(st.lists(SYMBOLS, min_size=1, max_size=6), st.sets(st.sampled_from("ABCDEF")))
def test_every_slot_is_resolved_and_each_price_paid_for_once(wants: list[list[str]], good: set[str]) -> None:
    slots = [make_slot(*symbols) for symbols in wants]
    merged = merge(*slots)
    asked = merged.symbols
    assert sorted(asked) == sorted({symbol for symbols in wants for symbol in symbols})
    merged.note_asked(asked)
    for symbol in asked:
        if symbol in good:
            merged.serve(symbol)
        else:
            merged.fail(symbol, "no", has_next=set())
    assert merged.take_resolved() == slots
    assert sum(slot.fetched for slot in slots) == len(good & set(asked))
    for slot, symbols in zip(slots, wants, strict=True):
        assert slot.outcome.points + len(slot.missing) == len(symbols)


def test_summary_tells_each_reason_once() -> None:
    assert summary({"A": "down", "B": "down", "C": "unknown"}) == "A, B: down; C: unknown"


@given(
    st.lists(st.text("ABCDEF", min_size=3), min_size=1, max_size=100, unique=True),
    st.integers(1, 100),
    st.integers(0, 2_000_000_000),
)
def test_symbols_of_polls_that_end_early_all_have_their_turn_soon(
    symbols: list[str], room: int, first_slot: int
) -> None:
    wanted, slots = set(symbols), 0
    while wanted:
        order = rotate(symbols, slot=first_slot + slots)
        assert sorted(order) == sorted(symbols)
        wanted -= set(order[:room])
        slots += 1
    # At best each slot asks for others than those before it.
    assert slots <= 2 * ceil(len(symbols) / room)


def test_no_symbols_have_no_turn() -> None:
    assert rotate([], slot=5) == []
