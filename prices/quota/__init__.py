"""The quota planner: what a provider's budget means for jobs that want more than it has."""

from prices.quota.admission import (
    BeyondBudgetError,
    StrictKeyError,
    change_planned_job,
    create_planned_job,
)
from prices.quota.allowance import (
    Allowance,
    allowance_of,
    forget_allowances,
    read_allowance,
    requests_used,
)
from prices.quota.demand import Target, key_of
from prices.quota.plan import (
    NotConfigured,
    Plan,
    QuotaPlan,
    all_blockers,
    budget_in_words,
    figure,
    plain_plan,
    plan_in_words,
    plan_of,
    plan_of_active,
    shortest_in_words,
)

__all__ = [
    "Allowance",
    "BeyondBudgetError",
    "NotConfigured",
    "Plan",
    "QuotaPlan",
    "StrictKeyError",
    "Target",
    "all_blockers",
    "allowance_of",
    "budget_in_words",
    "change_planned_job",
    "create_planned_job",
    "figure",
    "forget_allowances",
    "key_of",
    "plain_plan",
    "plan_in_words",
    "plan_of",
    "plan_of_active",
    "read_allowance",
    "requests_used",
    "shortest_in_words",
]
