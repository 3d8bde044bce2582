"""Jobs that name no provider, where budgets are small or providers do not work."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from prices.fetching.budget_history import load_sent_times
from prices.ledger.grid import phase_of, slot_at
from prices.ledger.runs import claim_slots
from prices.models import PollJob, PollRun, PricePoint, RawMarketData
from prices.polling.handover import take_over, to_message
from prices.polling.merge import PendingRun, rotate
from prices.polling.poll import Polled, claim_and_poll
from prices.quota import forget_allowances
from prices.scheduling.job_changes import JobChanges
from providers.rate_limits.permits import Granted, report_outcome, request_permit
from providers.simulator.simulator import Simulator
from tests.conftest import MakeJob

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def two_providers(settings: Settings, topic: str) -> None:
    settings.PROVIDER_ORDER = ["finnhub", "alpha_vantage"]
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {
        "finnhub": "1000/1s",
        "alpha_vantage": "1000/1s,25/1d",
    }


def poll_to_the_end(jobs: list[PollJob], *, slot: int) -> Polled:
    """Poll a slot, with all that goes on at other providers."""
    PricePoint.objects.update(received_at=NOW - timedelta(minutes=5))
    forget_allowances()
    polled = claim_and_poll([job.id for job in jobs], now=NOW + timedelta(seconds=60 * slot))
    while polled.go_on:
        provider, slots = polled.go_on.popitem()
        more = take_over(provider, [to_message(each) for each in slots])
        polled.states |= more.states
        polled.go_on |= more.go_on
    return polled


def asked(simulator: Simulator) -> Counter[str]:
    return Counter(request.provider for request in simulator.requests())


def test_job_that_fell_back_to_a_small_budget_returns_where_it_is_served_in_full(
    make_job: MakeJob, simulator: Simulator
) -> None:
    job = make_job(["IBM", "AAPL"], interval=60, provider=None)
    simulator.change(provider="finnhub", not_entitled=True)
    poll_to_the_end([job], slot=0)
    job.refresh_from_db()
    assert job.served_by == "alpha_vantage"
    simulator.change(provider="finnhub", not_entitled=False)
    states = [poll_to_the_end([job], slot=slot).states[job.id] for slot in range(1, 5)]
    assert states == ["stored"] * 4
    job.refresh_from_db()
    assert job.served_by == "finnhub"


def test_fallback_never_uses_up_what_jobs_have_of_a_day(make_job: MakeJob, simulator: Simulator) -> None:
    jobs = [make_job([f"S{number}", f"T{number}"], interval=60, provider=None) for number in range(3)]
    simulator.change(provider="finnhub", not_entitled=True)
    for slot in range(8):
        poll_to_the_end(jobs, slot=slot)
    # A fifth of 25 is for callers and fallbacks; what was served moves into the plan, which is even.
    assert asked(simulator)["alpha_vantage"] <= 10
    named = make_job(["IBM"], interval=60, provider="alpha_vantage")
    assert poll_to_the_end([named], slot=9).states[named.id] in {"stored", "skipped"}


def test_fallback_leaves_alone_a_provider_whose_own_jobs_want_more_than_it_has(
    make_job: MakeJob, simulator: Simulator
) -> None:
    make_job(["IBM"], interval=60, provider="alpha_vantage")
    job = make_job(["AAPL"], interval=60, provider=None)
    simulator.change(provider="finnhub", not_entitled=True)
    assert poll_to_the_end([job], slot=0).states[job.id] == "failed"
    assert asked(simulator)["alpha_vantage"] == 0
    assert "alpha_vantage: budget: the provider's own jobs want all of it" in PollRun.objects.get().reason


def test_slot_beside_a_fallback_keeps_its_own_share(make_job: MakeJob, simulator: Simulator) -> None:
    own = make_job(["IBM"], interval=60, provider="alpha_vantage")
    other = make_job(["AAPL"], interval=60, provider=None)
    claims = claim_slots([own.id, other.id], now=NOW)
    slots = {claim.job.id: PendingRun(claim, dict.fromkeys(claim.job.symbols)) for claim in claims}
    slots[other.id].tried = ["finnhub"]
    take_over("alpha_vantage", [to_message(slots[other.id]), to_message(slots[own.id])])
    assert PollRun.objects.get(job=own).state == "stored"
    assert "the provider's own jobs want all of it" in PollRun.objects.get(job=other).reason
    assert not RawMarketData.objects.get().is_fallback


def test_fallback_is_kept_with_what_paid_for_it(make_job: MakeJob, simulator: Simulator) -> None:
    job = make_job(["AAPL"], interval=86_400, provider=None)
    simulator.change(provider="finnhub", not_entitled=True)
    poll_to_the_end([job], slot=0)
    asked_by = dict(RawMarketData.objects.values_list("provider", "is_fallback"))
    assert asked_by == {"finnhub": False, "alpha_vantage": True}


def test_many_new_jobs_leave_most_of_a_day_for_later(make_job: MakeJob, simulator: Simulator) -> None:
    jobs = [make_job([f"S{number}"], interval=60, provider="alpha_vantage") for number in range(30)]
    for job in jobs:
        poll_to_the_end([job], slot=0)
    assert asked(simulator)["alpha_vantage"] <= 6


def test_jobs_never_use_what_is_kept_for_callers(
    make_job: MakeJob, simulator: Simulator, settings: Settings
) -> None:
    settings.PROVIDER_BUDGETS = settings.PROVIDER_BUDGETS | {"alpha_vantage": "1000/1s,10/1d"}
    job = make_job([f"S{number}" for number in range(10)], interval=86_400, provider="alpha_vantage")
    PollJob.objects.update(interval=86_400)
    settings.LATEST_BUDGET_SHARE_PERCENT = 0
    forget_allowances()
    other = make_job(["IBM"], interval=86_400, provider="alpha_vantage")
    settings.LATEST_BUDGET_SHARE_PERCENT = 20
    for each in (job, other):
        claim_and_poll([each.id], now=NOW)
    assert asked(simulator)["alpha_vantage"] <= 8


def test_job_that_moves_is_told_to_beat_and_planner(make_job: MakeJob, simulator: Simulator) -> None:
    changes = JobChanges(PollJob.objects.all)
    job = make_job(["AAPL"], interval=60, provider=None)
    poll_to_the_end([job], slot=0)
    assert [(each.id, each.served_by) for each in changes.read()] == [(job.id, "finnhub")]
    simulator.change(provider="finnhub", not_entitled=True)
    poll_to_the_end([job], slot=1)
    assert [(each.id, each.served_by) for each in changes.read()] == [(job.id, "alpha_vantage")]
    poll_to_the_end([job], slot=2)
    assert changes.read() == []


def test_slot_whose_time_is_over_goes_on_nowhere(
    make_job: MakeJob, settings: Settings, httpserver: HTTPServer
) -> None:
    """The next provider's worker would find no claim, and the price that came would be of no run."""
    settings.FINNHUB_BASE_URL = httpserver.url_for("").rstrip("/")
    settings.FINNHUB_API_KEY = settings.ALPHA_VANTAGE_API_KEY = "canary-key-123456"
    # Three quarters of it are for asking.
    settings.POLL_DEADLINE_S = 4
    refused = Response('{"error":"You don\'t have access to this resource."}', 403)

    def answer(request: Request) -> Response:
        if request.args["symbol"] == "REFUSED":
            return refused
        time.sleep(3.2)
        return Response(f'{{"c":150.25,"d":1,"dp":1,"h":0,"l":0,"o":0,"pc":0,"t":{int(time.time()) - 5}}}')

    httpserver.expect_request("/api/v1/quote").respond_with_handler(answer)
    job = make_job(["REFUSED", "SLOW"], interval=60, provider=None)
    PollJob.objects.update(last_run_at=NOW)
    polled = claim_and_poll([job.id], now=NOW + timedelta(seconds=_slot_that_begins_with("REFUSED", job)))
    assert polled.go_on == {}
    run = PollRun.objects.get()
    assert (run.state, run.points) == ("stored", 1)
    assert run.reason.startswith("REFUSED: finnhub: ")


def _slot_that_begins_with(symbol: str, job: PollJob) -> int:
    """Return the seconds until a slot in which this symbol is asked for first."""
    for seconds in range(0, 6000, 60):
        phase = phase_of(None, job.interval, job.symbols)
        due = slot_at(NOW + timedelta(seconds=seconds), job.interval, phase)
        if rotate(job.symbols, slot=int(due.timestamp()) // job.interval)[0] == symbol:
            return seconds
    raise AssertionError(symbol)


def test_slot_that_no_key_lets_go_on_says_so_of_each_symbol(make_job: MakeJob, settings: Settings) -> None:
    job = make_job(["AAPL", "IBM"], interval=60, provider=None)
    (claim,) = claim_slots([job.id], now=NOW)
    slot = PendingRun(claim, dict.fromkeys(job.symbols), tried=["finnhub"], over_budget=["IBM"])
    settings.ALPHA_VANTAGE_API_KEY = ""
    take_over("alpha_vantage", [to_message(slot)])
    assert PollRun.objects.get().reason == "alpha_vantage: not_configured: set ALPHA_VANTAGE_API_KEY"


def test_requests_of_callers_leave_a_new_job_its_first_poll(make_job: MakeJob, simulator: Simulator) -> None:
    budget = "alpha_vantage"
    for number in range(5):
        permit = request_permit(budget, caller="latest", load_history=load_sent_times)
        assert isinstance(permit, Granted), number
        report_outcome(permit, {}, answer=None)
    job = make_job(["IBM"], interval=60, provider=budget)
    assert poll_to_the_end([job], slot=0).states[job.id] == "stored"
