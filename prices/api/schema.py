"""The answers' shapes, for the OpenAPI schema."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from prices.api.ledger_schema import LastDay
from providers.base import ErrorKind
from providers.rate_limits.permits import Refusal


class ExactNumber(serializers.DecimalField):
    """A JSON number with the provider's digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=None, decimal_places=None, coerce_to_string=False, **kwargs)


class Attempt(serializers.Serializer[Any]):
    """A provider that gave no price, and why."""

    provider = serializers.CharField()
    error = serializers.ChoiceField(
        [*map(str, ErrorKind), *map(str, Refusal), "timeout", "too_many_fetches", "too_old"],
        help_text="What the provider answered, or why it was not asked or not waited for.",
    )
    message = serializers.CharField(help_text="The same for people.")


class Latest(serializers.Serializer[Any]):
    """A price and when it was true."""

    symbol = serializers.CharField()
    price = ExactNumber()
    timestamp = serializers.DateTimeField(help_text="The provider's own time; ours where it gives none.")
    provider = serializers.CharField()
    observed_at = serializers.DateTimeField(required=False, allow_null=True, help_text="With expand=quality.")
    precision = serializers.ChoiceField(["second", "day", "unknown"], required=False)
    received_at = serializers.DateTimeField(required=False)
    age_seconds = serializers.FloatField(required=False, allow_null=True)
    currency = serializers.CharField(required=False, allow_null=True, help_text="GBp is pence.")
    market_state = serializers.ChoiceField(["open", "closed", "unknown"], required=False)
    freshness = serializers.ChoiceField(["fresh", "delayed", "stale", "unknown"], required=False)
    freshness_rule = serializers.CharField(required=False, help_text="The rule that decided.")
    raw_response_id = serializers.UUIDField(required=False)
    attempts = Attempt(many=True, required=False, help_text="Who was asked before and gave no price.")


class Config(serializers.Serializer[Any]):
    """What a job polls."""

    symbols = serializers.ListField(child=serializers.CharField())
    interval = serializers.IntegerField(help_text="Seconds.")


class Accepted(serializers.Serializer[Any]):
    """A new job."""

    job_id = serializers.UUIDField()
    status = serializers.ChoiceField(["accepted"])
    config = Config()


class Stopped(serializers.Serializer[Any]):
    """A stopped job."""

    status = serializers.ChoiceField(["stopped"])
    job_id = serializers.UUIDField()


class Average(serializers.Serializer[Any]):
    """The average at one point."""

    event_id = serializers.UUIDField()
    symbol = serializers.CharField()
    price = ExactNumber()
    currency = serializers.CharField(allow_null=True, help_text="GBp is pence; null: not told.")
    average = ExactNumber(allow_null=True, help_text="Null before the fifth point of symbol and currency.")
    window_size = serializers.IntegerField(help_text="Points in the window, 1 to 5.")
    provider = serializers.CharField()
    observed_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class Job(serializers.Serializer[Any]):
    """A job and how it fares."""

    job_id = serializers.UUIDField()
    status = serializers.ChoiceField(["active", "paused", "stopped"])
    symbols = serializers.ListField(child=serializers.CharField())
    interval = serializers.IntegerField(help_text="Seconds.")
    provider = serializers.CharField(allow_null=True, help_text="Null: the service chooses.")
    created_at = serializers.DateTimeField()
    last_run_at = serializers.DateTimeField(allow_null=True)
    last_success_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(allow_null=True)
    failures = serializers.IntegerField(help_text="Polls that failed since the last good one.")
    blocked_by = serializers.ListField(
        child=serializers.CharField(), help_text="What keeps an active job from polling; usually none."
    )


class QuotaPlan(serializers.Serializer[Any]):
    """What a provider's budget gives a job; of a provider without a key only `not_configured`."""

    provider = serializers.CharField(required=False)
    budget = serializers.CharField(required=False, help_text="The limit that binds: 25/1d; or none.")
    reserved_for_latest = serializers.IntegerField(
        required=False, help_text="Requests of the budget that GET /prices/latest may use."
    )
    in_use = serializers.FloatField(
        required=False, help_text="Requests of the budget that other active jobs want; at most all for jobs."
    )
    wanted_per_day = serializers.FloatField(required=False, help_text="Requests that the interval takes.")
    granted_per_day = serializers.FloatField(required=False, help_text="Requests that the job gets.")
    in_full = serializers.BooleanField(required=False, help_text="Nothing is ever withheld.")
    interval = serializers.IntegerField(required=False, help_text="Seconds, as asked for.")
    effective_interval = serializers.IntegerField(
        required=False, allow_null=True, help_text="Seconds between requests for a symbol; null: never."
    )
    market_hours_only = serializers.BooleanField(
        required=False, help_text="Nothing is asked for while all of the job's markets are closed."
    )
    shortest_interval = serializers.IntegerField(
        required=False, allow_null=True, help_text="Seconds; null: not even 86400 s fits."
    )
    not_configured = serializers.CharField(required=False, help_text="What to set: set FINNHUB_API_KEY.")


class JobDetail(Job):
    """A job, how its slots of the last 24 hours fared, and what the budget gives it."""

    success_rate = serializers.FloatField(
        allow_null=True,
        help_text=(
            "The share of `last_24h.slots` that got at least one price: stored and shared. What the budget"
            " left out (skipped) and what was due while the job was paused (in_gaps) counts as without."
            " Null where there was no slot."
        ),
    )
    last_24h = LastDay()
    quota_plan = QuotaPlan(allow_null=True, help_text="Null for a job that is not active.")


class BudgetWindow(serializers.Serializer[Any]):
    """One limit of a provider."""

    limit = serializers.IntegerField(help_text="Requests in the window.")
    window_s = serializers.FloatField()
    left = serializers.IntegerField()
    resets_in_s = serializers.FloatField(help_text="Until the oldest request leaves the window.")


class ProviderStatus(serializers.Serializer[Any]):
    """How a provider stands."""

    provider = serializers.CharField()
    configured = serializers.BooleanField()
    missing_setting = serializers.CharField(allow_null=True, help_text="The setting to give a value.")
    breaker = serializers.ChoiceField(["closed", "open", "half_open"])
    failures = serializers.IntegerField(help_text="In a row.")
    retry_after_s = serializers.FloatField(allow_null=True, help_text="Until it may be asked again.")
    last_success = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="Left out, as the next two, for simulated: it has no network.",
    )
    last_error = serializers.CharField(required=False, allow_null=True)
    last_error_at = serializers.DateTimeField(required=False, allow_null=True)
    budget = BudgetWindow(
        many=True, help_text="Empty: no limit, or not asked since Redis started or lost its counts."
    )


class ProvidersList(serializers.Serializer[Any]):
    """All providers."""

    results = ProviderStatus(many=True)


class AveragesPage(serializers.Serializer[Any]):
    """A page of averages."""

    results = Average(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, of older ones.")


class JobsPage(serializers.Serializer[Any]):
    """A page of jobs."""

    results = Job(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, of older ones.")


class FieldError(serializers.Serializer[Any]):
    """What is wrong with one field."""

    field = serializers.CharField()
    problem = serializers.CharField()
    allowed = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """Why a call was refused (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    # A declared field, which the metaclass takes out of the class: Serializer.errors stays.
    errors = FieldError(many=True, required=False)  # type: ignore[assignment]
    variable = serializers.CharField(required=False, help_text="The setting that has no value.")
    age_seconds = serializers.FloatField(required=False, allow_null=True, help_text="Of a price too old.")
    attempts = Attempt(
        many=True, required=False, help_text="Who was asked for a price, and why none gave one."
    )
    shortest_interval = serializers.IntegerField(
        required=False, allow_null=True, help_text="Seconds that fit the budget; null: not even 86400."
    )


LATEST_HEADERS = [
    OpenApiParameter(
        "Age",
        int,
        OpenApiParameter.HEADER,
        response=[200],
        description="Whole seconds since the provider's answer was received.",
    ),
    OpenApiParameter(
        "Cache-Control",
        str,
        OpenApiParameter.HEADER,
        response=True,
        description="How long a cache may give the same answer; no-store for errors, expand and max_age.",
    ),
    OpenApiParameter(
        "Retry-After",
        int,
        OpenApiParameter.HEADER,
        response=[429, 503, 504],
        description="Seconds until asking again makes sense.",
    ),
]


QUOTA_PLAN_HEADER = OpenApiParameter(
    "Quota-Plan",
    str,
    OpenApiParameter.HEADER,
    response=[202],
    description=(
        "What the budget gives the job: a dictionary (RFC 9651) of the members of a job's `quota_plan`"
        " that are not null; or `not configured: set FINNHUB_API_KEY`."
    ),
)

Endpoint = tuple[str, str, str, Any]


def without_trailing_slashes(endpoints: list[Endpoint], **kwargs: Any) -> list[Endpoint]:
    """Return the addresses as the contract writes them; a trailing slash works too."""
    return [(path.rstrip("/"), pattern, method, view) for path, pattern, method, view in endpoints]


def problems(*statuses: int) -> dict[tuple[int, str], type[Problem]]:
    """Return the error answers of a call."""
    return {(status, "application/problem+json"): Problem for status in statuses}
