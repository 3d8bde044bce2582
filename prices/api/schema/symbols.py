"""The shapes of known symbols."""

from typing import Any

from rest_framework import serializers

from prices.api.schema.common import Choice, ExactNumber
from prices.models import JobStatus, Precision
from providers.markets.freshness import FreshnessState
from providers.markets.hours import MarketState


class LastPrice(serializers.Serializer[Any]):
    """A price as GET /prices/latest has it with `fetch=never` and `expand=quality`."""

    symbol = serializers.CharField()
    price = ExactNumber()
    timestamp = serializers.DateTimeField(help_text="The provider's own time; ours where it gives none.")
    provider = serializers.CharField()
    observed_at = serializers.DateTimeField(allow_null=True, help_text="The provider's own time.")
    precision = Choice(Precision.values, name="Precision", help_text="Of observed_at.")
    received_at = serializers.DateTimeField()
    age_seconds = serializers.FloatField(allow_null=True)
    currency = serializers.CharField(allow_null=True, help_text="GBp is pence; null: not told.")
    market_state = Choice(MarketState, name="MarketState")
    freshness = Choice(FreshnessState, name="Freshness")
    freshness_rule = serializers.CharField(help_text="The rule that decided.")
    raw_response_id = serializers.UUIDField()


class LastAverage(serializers.Serializer[Any]):
    """The newest average."""

    event_id = serializers.UUIDField(help_text="Of its newest point.")
    average = ExactNumber(allow_null=True, help_text="Null before the fifth point of symbol and currency.")
    currency = serializers.CharField(allow_null=True)
    window_size = serializers.IntegerField(
        min_value=1, max_value=5, help_text="Points in the window, 1 to 5."
    )


class JobOfSymbol(serializers.Serializer[Any]):
    """A job that polls the symbol, or is paused."""

    job_id = serializers.UUIDField()
    status = Choice([JobStatus.ACTIVE, JobStatus.PAUSED], name="PollingStatus")


class KnownSymbol(serializers.Serializer[Any]):
    """A symbol of a job, or with a price of the last 7 days."""

    symbol = serializers.CharField()
    providers = serializers.ListField(
        child=serializers.CharField(), help_text="Who gave a price; who gave the last one first."
    )
    last_price = LastPrice(allow_null=True)
    last_average = LastAverage(allow_null=True)
    jobs = JobOfSymbol(many=True)


class SymbolsPage(serializers.Serializer[Any]):
    """A page of symbols."""

    results = KnownSymbol(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page.")
