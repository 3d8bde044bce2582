"""The shapes of jobs."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from prices.api.idempotency import HEADER
from prices.api.schema.common import Choice, Word
from prices.api.schema.ledger import LastDay
from prices.models import JobStatus


class Config(serializers.Serializer[Any]):
    """What a job polls."""

    symbols = serializers.ListField(child=serializers.CharField())
    interval = serializers.IntegerField(help_text="Seconds.")
    market_hours = serializers.BooleanField(required=False, help_text="Only there where it is true.")


class Accepted(serializers.Serializer[Any]):
    """A new job."""

    job_id = serializers.UUIDField()
    status = Word("accepted")
    config = Config()


class Stopped(serializers.Serializer[Any]):
    """A stopped job."""

    status = Word("stopped")
    job_id = serializers.UUIDField()


class Job(serializers.Serializer[Any]):
    """A job and how it fares."""

    job_id = serializers.UUIDField()
    status = Choice(JobStatus.values, name="JobStatus")
    symbols = serializers.ListField(child=serializers.CharField())
    interval = serializers.IntegerField(help_text="Seconds.")
    provider = serializers.CharField(allow_null=True, help_text="Null: the service chooses.")
    market_hours = serializers.BooleanField(
        help_text="Each symbol is polled in the hours of its market alone, and for an hour after the close."
    )
    created_at = serializers.DateTimeField()
    last_run_at = serializers.DateTimeField(allow_null=True)
    last_success_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(allow_null=True)
    failures = serializers.IntegerField(min_value=0, help_text="Polls that failed since the last good one.")
    blocked_by = serializers.ListField(
        child=serializers.CharField(),
        help_text="What keeps an active job from polling, closed markets too; usually none.",
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
    wanted_per_day = serializers.FloatField(
        required=False, help_text="Requests that the interval takes; of market hours, on a trading day."
    )
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
        min_value=0,
        max_value=1,
        allow_null=True,
        help_text=(
            "The share of `last_24h.slots` that got at least one price: stored and shared. What the budget"
            " left out (skipped) and what was due while the job was paused (in_gaps) counts as without."
            " Null where there was no slot. Slots while its markets were closed are none of them."
        ),
    )
    last_24h = LastDay()
    quota_plan = QuotaPlan(allow_null=True, help_text="Null for a job that is not active.")


class JobsPage(serializers.Serializer[Any]):
    """A page of jobs."""

    results = Job(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, of older ones.")


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
IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER,
    # A server takes off the spaces around a header's value.
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    OpenApiParameter.HEADER,
    description=(
        "The client's own name for this request. For 24 hours the same request with the same key is answered"
        " as before, and creates no second job; another request with it is refused (422), and so is one while"
        " the first is under way (409)."
    ),
)
LOCATION_HEADER = OpenApiParameter(
    "Location", str, OpenApiParameter.HEADER, response=[202], description="The address of the job."
)
