"""What a job that is not there yet would get, for people."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from prices.quota import NotConfigured, Target, plan_in_words, plan_of
from providers.rate_limits.limits import time_in_words


@dataclass(frozen=True, slots=True)
class Answer:
    """The planner's answer: a state in the words of the pages' colours, in a word, and in a sentence."""

    state: str
    word: str
    sentence: str


def answer_for(values: dict[str, Any], *, now: datetime) -> Answer:
    """Return what the budget gives such a job. It reads only."""
    plan = plan_of(Target(**values), now=now)
    refused = " Such a job is refused here (QUOTA_STRICT)." if settings.QUOTA_STRICT else ""
    if isinstance(plan, NotConfigured):
        return Answer("stale", "waits", f"{plan.provider} is {plan}; until then nothing is polled.{refused}")
    words = f"{plan.provider} gives it {plan_in_words(plan)}."
    if plan.in_full:
        return Answer("fresh", "as asked", words)
    if plan.effective_interval is None:
        return Answer("stale", "never", words + refused)
    return Answer("delayed", f"really every {time_in_words(plan.effective_interval)}", words + refused)
