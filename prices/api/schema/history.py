"""The shapes of points and averages."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers

from prices.api.schema.common import Choice, ExactNumber, NumberOrText, Problem
from prices.bars.reading import LENGTHS
from prices.models import Precision


class Point(serializers.Serializer[Any]):
    """A stored price."""

    event_id = serializers.UUIDField()
    symbol = serializers.CharField()
    provider = serializers.CharField()
    price = NumberOrText(help_text="A string with `numbers=string`, as all prices.")
    currency = serializers.CharField(allow_null=True, help_text="GBp is pence; null: not told.")
    observed_at = serializers.DateTimeField(allow_null=True, help_text="The provider's own time.")
    precision = Choice(Precision.values, name="Precision", help_text="Of observed_at.")
    received_at = serializers.DateTimeField()
    raw_response_id = serializers.UUIDField()


class HistoryPage(serializers.Serializer[Any]):
    """A page of prices."""

    results = Point(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page.")


class Input(serializers.Serializer[Any]):
    """A point of a window."""

    event_id = serializers.UUIDField()
    price = NumberOrText()


class Average(serializers.Serializer[Any]):
    """The average at one point."""

    event_id = serializers.UUIDField()
    symbol = serializers.CharField()
    price = NumberOrText()
    currency = serializers.CharField(allow_null=True, help_text="GBp is pence; null: not told.")
    average = NumberOrText(allow_null=True, help_text="Null before the fifth point of symbol and currency.")
    window_size = serializers.IntegerField(
        min_value=1, max_value=5, help_text="Points in the window, 1 to 5."
    )
    provider = serializers.CharField()
    observed_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    inputs = Input(many=True, required=False, help_text="With expand=inputs: the window, newest first.")


class AveragesPage(serializers.Serializer[Any]):
    """A page of averages."""

    results = Average(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page.")


class BarRow(serializers.Serializer[Any]):
    """A bar of one provider and one currency."""

    start = serializers.DateTimeField(help_text="Of a day: the midnight in UTC of the session's date.")
    open = ExactNumber()
    high = ExactNumber()
    low = ExactNumber()
    close = ExactNumber()
    samples = serializers.IntegerField(min_value=1, help_text="Different times of the provider.")
    first_observed_at = serializers.DateTimeField()
    last_observed_at = serializers.DateTimeField()
    provider = serializers.CharField()
    currency = serializers.CharField(allow_null=True)
    final = serializers.BooleanField(
        help_text="Over for two minutes, and each slot that was due in it has its outcome."
    )
    revision = serializers.IntegerField(
        min_value=0,
        help_text="0 while it is made as it is read, then 1; higher by one for each later change.",
    )


class BarsPage(serializers.Serializer[Any]):
    """Bars in the order of time."""

    symbol = serializers.CharField()
    interval = Choice(LENGTHS, name="BarLength")
    kind = serializers.CharField(help_text="What the prices are, for people.")
    results = BarRow(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, of later ones.")


class AveragesOfSymbol(serializers.Serializer[Any]):
    """A symbol's newest averages, or in `problem` why there is none."""

    symbol = serializers.CharField()
    averages = Average(
        many=True, required=False, help_text="One for each currency, that of the newest price first."
    )
    problem = Problem(required=False, help_text="As the body of an error.")


class NewestAverages(serializers.Serializer[Any]):
    """The newest averages of each symbol, in the order of `symbols`."""

    results = AveragesOfSymbol(many=True)


def files(header: str) -> dict[tuple[int, str], OpenApiResponse]:
    """Return the answers of the other forms."""
    return {
        (200, "text/csv"): OpenApiResponse(
            OpenApiTypes.STR, description=f"A header ({header} …), then a row a line."
        ),
        (200, "application/x-ndjson"): OpenApiResponse(OpenApiTypes.STR, description="An object a line."),
    }
