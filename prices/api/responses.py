"""What the calls answer, as plain data."""

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import msgspec
from django.conf import settings

from prices.access.rights import needs_keys
from prices.api.renderers import encode_json, number, time
from prices.bars.joining import Bar
from prices.history.evidence import Evidence
from prices.history.raw_answers import AnswerWithBody
from prices.latest.errors import Failure
from prices.latest.known_symbols import KnownSymbol
from prices.latest.services import Served
from prices.latest.stored import point_freshness
from prices.ledger.reports import MissedRange, SlotCounts
from prices.models import PollJob, PollRun, PricePoint, RawMarketData
from prices.quota import NotConfigured, Plan, all_blockers, plain_plan
from providers.markets.freshness import age_seconds
from providers.rate_limits.breaker import breaker_state
from providers.rate_limits.budget import remaining
from providers.rate_limits.permits import is_metered
from providers.registry import missing_setting

_ENCODED = "encoded_price"


def latest(served: Served, *, expand: bool, now: datetime) -> dict[str, Any] | msgspec.Raw:
    """Return a price; `timestamp` is the provider's own time, or ours where it gives none."""
    if not expand:
        return _encoded_price(served.point)
    return _price(served.point) | _quality(served.point, now=now) | {"attempts": attempts(served.failures)}


def _price(point: PricePoint) -> dict[str, Any]:
    return {
        "symbol": point.symbol,
        "price": number(point.price),
        "timestamp": time(point.observed_at or point.received_at),
        "provider": point.provider,
    }


def _encoded_price(point: PricePoint) -> msgspec.Raw:
    # A point never changes, and one that is served is mostly served again: its object keeps it, since to find
    # a model in a dict takes as long as to encode it.
    kept: msgspec.Raw | None = point.__dict__.get(_ENCODED)
    if kept is None:
        kept = point.__dict__[_ENCODED] = msgspec.Raw(encode_json(_price(point)))
    return kept


def _quality(point: PricePoint, *, now: datetime) -> dict[str, Any]:
    """Return how good a price is: its times, its age by the provider's time, and what that means."""
    found = point_freshness(point, now=now)
    known = point.known_time
    age_s = None if known is None else age_seconds(known, now=now)
    return {
        "observed_at": time(point.observed_at),
        "precision": point.precision,
        "received_at": time(point.received_at),
        "age_seconds": age_s,
        "currency": point.currency,
        "market_state": str(found.market_state),
        "freshness": str(found.state),
        "freshness_rule": found.rule,
        "raw_response_id": str(point.raw),
    }


def known_symbol(found: KnownSymbol, *, now: datetime) -> dict[str, Any]:
    """Return a symbol, who polls it, its last price and average."""
    last, average = found.last, found.average
    return {
        "symbol": found.symbol,
        "providers": found.providers,
        "last_price": None if last is None else _price(last) | _quality(last, now=now),
        "last_average": None
        if average is None
        else {
            "event_id": str(average.event_id),
            "average": number(average.average),
            "currency": average.currency,
            "window_size": average.window_size,
        },
        "jobs": [{"job_id": str(job.job_id), "status": job.status} for job in found.jobs],
    }


def cache_headers(point: PricePoint, *, is_kept: bool, now: datetime) -> dict[str, str]:
    """Return what tells a cache how long it may give the same price again: as long as it is reused here."""
    # The age began when the provider answered, so caches and this service together never exceed it.
    age_s = max(int((now - point.received_at).total_seconds()), 0)
    # Where keys are needed, a cache between gives no answer to who has none.
    whose = "private" if needs_keys() else "public"
    kept = f"{whose}, max-age={settings.LATEST_REUSE_S}" if is_kept else "no-store"
    return {"Age": str(age_s), "Cache-Control": kept}


def attempts(failures: Iterable[Failure]) -> list[dict[str, str]]:
    """Return who was asked and gave no price, and why."""
    return [
        {"provider": failure.provider, "error": failure.kind, "message": sentence(failure.message)}
        for failure in failures
    ]


def sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def provider(name: str) -> dict[str, Any]:
    """Return how a provider stands: its key, its breaker, what is left of its budget.

    What was seen of its requests is left out where they go over no network: nobody watches those.
    Raises SharedStateError where Redis, which knows of breaker and budget, is away.
    """
    breaker, left = breaker_state(name), remaining(name)
    windows = left.windows or ()
    last_seen = {
        "last_success": time(breaker.last_success),
        "last_error": breaker.last_error and str(breaker.last_error),
        "last_error_at": time(breaker.last_error_at),
    }
    return {
        "provider": name,
        "configured": missing_setting(name) is None,
        "missing_setting": missing_setting(name),
        "breaker": breaker.state,
        "failures": breaker.failures,
        "retry_after_s": max(breaker.retry_after_s, left.held_for_s) or None,
        **(last_seen if is_metered(name) else {}),
        "budget": [
            {"limit": use.limit, "window_s": use.window_s, "left": use.left, "resets_in_s": use.resets_in_s}
            for use in windows
        ],
    }


def quota_plan_header(plan: Plan) -> str:
    """Return a plan as a structured field: a dictionary (RFC 9651) of what is not null."""
    if isinstance(plan, NotConfigured):
        return str(plan)
    members = plain_plan(plan).items()
    return ", ".join(f"{name}={_bare_item(value)}" for name, value in members if value is not None)


def _bare_item(value: bool | float | str) -> str:
    # All texts are names of providers and budgets: nothing to escape.
    if isinstance(value, bool):
        return f"?{int(value)}"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def accepted(job: PollJob) -> dict[str, Any]:
    """Return a new job; `market_hours` only where it has them."""
    hours = {"market_hours": True} if job.market_hours else {}
    return {
        "job_id": str(job.id),
        "status": "accepted",
        "config": {"symbols": job.symbols, "interval": job.interval} | hours,
    }


def stopped(job: PollJob) -> dict[str, Any]:
    """Return a stopped job."""
    return {"status": str(job.status), "job_id": str(job.id)}


def job(job: PollJob, plan: Plan | None, *, now: datetime) -> dict[str, Any]:
    """Return a job's settings, how its polls fare, and what keeps it from polling."""
    return {
        "job_id": str(job.id),
        "status": str(job.status),
        "symbols": job.symbols,
        "interval": job.interval,
        "provider": job.provider,
        "market_hours": job.market_hours,
        "created_at": time(job.created_at),
        "last_run_at": time(job.last_run_at),
        "last_success_at": time(job.last_success_at),
        "last_error": job.last_error or None,
        "failures": job.failures,
        "blocked_by": all_blockers(job, plan, now=now),
    }


def job_detail(row: PollJob, plan: Plan | None, last_day: SlotCounts, *, now: datetime) -> dict[str, Any]:
    """Return a job, what became of its slots in the last 24 hours, and what the budget gives it."""
    by_outcome = {name: getattr(last_day, name) for name in SlotCounts.__slots__}
    return job(row, plan, now=now) | {
        "success_rate": last_day.success_rate,
        "last_24h": {"slots": last_day.slots} | by_outcome,
        "quota_plan": None if plan is None else plain_plan(plan),
    }


def run(run: PollRun) -> dict[str, Any]:
    """Return a run, and how late it was begun."""
    return {
        "poll_id": str(run.id),
        "due_at": time(run.due_at),
        "state": run.state,
        "reason": run.reason or None,
        "points": run.points,
        "started_at": time(run.started_at),
        "finished_at": time(run.finished_at),
        "delay_s": (run.started_at - run.due_at).total_seconds(),
    }


def price_with_evidence(found: Evidence) -> dict[str, Any]:
    """Return a price with the raw answer that it is from, the run that asked, and its average."""
    members = msgspec.json.decode(found.point, type=dict[str, msgspec.Raw])
    return members | {
        "average": None if found.average is None else msgspec.Raw(found.average.encode()),
        "raw": None if found.raw is None else raw_answer(found.raw),
        "raw_gone": found.raw is None,
        "run": None if found.run is None else run(found.run),
        "job_id": None if found.run is None else str(found.run.job_id),
    }


def raw_answer(row: RawMarketData) -> dict[str, Any]:
    """Return a provider's answer without its body."""
    return {
        "id": str(row.id),
        "provider": row.provider,
        "symbols": row.symbols,
        "url": row.url,
        "status": row.status,
        "outcome": row.outcome,
        "message": row.message or None,
        "received_at": time(row.received_at),
        "latency_ms": row.latency_ms,
        "poll_id": row.poll and str(row.poll),
        "is_fallback": row.is_fallback,
    }


def raw_answer_with_body(answer: AnswerWithBody) -> dict[str, Any]:
    """Return a provider's answer; its body is JSON with every digit, or else a string."""
    body, encoding = _body(answer)
    return raw_answer(answer.row) | {"body": body, "body_encoding": encoding}


def _body(answer: AnswerWithBody) -> tuple[msgspec.Raw | str | None, str | None]:
    if answer.payload is not None:
        return msgspec.Raw(answer.payload.encode()), "json"
    if answer.row.body is None:
        return None, None
    data = bytes(answer.row.body)
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


def missed_range(found: MissedRange) -> dict[str, Any]:
    """Return a range of slots that got no price."""
    return {
        "from": time(found.from_due),
        "to": time(found.to_due),
        "slots": found.slots,
        "reason": found.reason,
        "kind": found.kind,
    }


def bar(bar: Bar) -> dict[str, Any]:
    """Return a bar; that of a day begins at the midnight in UTC of its date."""
    return {
        "start": time(bar.start),
        "open": number(bar.open),
        "high": number(bar.high),
        "low": number(bar.low),
        "close": number(bar.close),
        "samples": bar.samples,
        "first_observed_at": time(bar.first_observed_at),
        "last_observed_at": time(bar.last_observed_at),
        "provider": bar.provider,
        "currency": bar.currency or None,
        "final": bar.is_final,
        "revision": bar.revision,
    }


def with_query(address: str, **values: str) -> str:
    """Return the address with these query values in place of its own of the same names."""
    parts = urlsplit(address)
    query = {name: found[-1] for name, found in parse_qs(parts.query).items()} | values
    return urlunsplit(parts._replace(query=urlencode(query)))
