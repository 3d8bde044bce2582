"""The shapes of prices, averages and providers."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, PolymorphicProxySerializer
from rest_framework import serializers

from prices.api.schema.common import Attempt, Choice, ExactNumber, Problem
from prices.models import Precision
from providers.markets.freshness import FreshnessState
from providers.markets.hours import MarketState


class Latest(serializers.Serializer[Any]):
    """A price and when it was true."""

    symbol = serializers.CharField()
    price = ExactNumber()
    timestamp = serializers.DateTimeField(help_text="The provider's own time; ours where it gives none.")
    provider = serializers.CharField()
    observed_at = serializers.DateTimeField(required=False, allow_null=True, help_text="With expand=quality.")
    precision = Choice(Precision.values, name="Precision", required=False, help_text="Of observed_at.")
    received_at = serializers.DateTimeField(required=False)
    age_seconds = serializers.FloatField(required=False, allow_null=True)
    currency = serializers.CharField(required=False, allow_null=True, help_text="GBp is pence.")
    market_state = Choice(MarketState, name="MarketState", required=False)
    freshness = Choice(FreshnessState, name="Freshness", required=False)
    freshness_rule = serializers.CharField(required=False, help_text="The rule that decided.")
    raw_response_id = serializers.UUIDField(required=False)
    attempts = Attempt(many=True, required=False, help_text="Who was asked before and gave no price.")


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
    breaker = Choice(["closed", "open", "half_open"], name="BreakerState")
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


class OneOfSeveral(Latest):
    """A price, or in `problem` why there is none."""

    price = ExactNumber(required=False)
    timestamp = serializers.DateTimeField(required=False)
    provider = serializers.CharField(required=False)
    problem = Problem(required=False, help_text="As the body of an error; `retry_after` as its header.")


class LatestOfEach(serializers.Serializer[Any]):
    """Prices in the order of `symbols`."""

    results = OneOfSeveral(many=True)


LatestAnswer = OpenApiResponse(
    PolymorphicProxySerializer(
        component_name="LatestAnswer", serializers=[Latest, LatestOfEach], resource_type_field_name=None
    ),
    description="The price; with `symbols` one of each, or why there is none.",
)

LATEST_HEADERS = [
    OpenApiParameter(
        "Age",
        {"type": "integer", "minimum": 0},
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
]
