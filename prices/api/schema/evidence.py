"""The shapes of a price with its evidence, and of raw answers."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from prices.api.schema.common import Choice
from prices.api.schema.history import Average, Point
from prices.api.schema.ledger import Run
from prices.models import Outcome


class RawAnswer(serializers.Serializer[Any]):
    """A request to a provider and what came of it."""

    id = serializers.UUIDField(help_text="The `raw_response_id` of its prices.")
    provider = serializers.CharField()
    symbols = serializers.ListField(child=serializers.CharField(), help_text="Which were asked for.")
    url = serializers.CharField(help_text="What was asked, without the key.")
    status = serializers.IntegerField(allow_null=True, help_text="HTTP status; null where no answer came.")
    outcome = Choice(Outcome.values, name="Outcome", help_text="quote: it has a price; else what is wrong.")
    message = serializers.CharField(allow_null=True, help_text="The error in words.")
    received_at = serializers.DateTimeField()
    latency_ms = serializers.FloatField()
    poll_id = serializers.UUIDField(
        allow_null=True, help_text="The run that asked; null where GET /prices/latest did."
    )
    is_fallback = serializers.BooleanField(help_text="The job's own provider had failed.")


@extend_schema_field(OpenApiTypes.ANY)
class AnyValue(serializers.JSONField):
    """Any JSON."""


class RawAnswerWithBody(RawAnswer):
    """A raw answer with its body."""

    body = AnyValue(help_text="With every digit. What is no JSON is cut to 64 KiB.")
    body_encoding = Choice(
        ["json", "utf-8", "base64"],
        name="BodyEncoding",
        allow_null=True,
        help_text="json: the body is that JSON. utf-8, base64: a string of it. Null: no body came.",
    )


class PriceWithEvidence(Point):
    """A stored price and where it came from."""

    published_at = serializers.DateTimeField(
        allow_null=True, help_text="When Kafka confirmed it; null: still to publish."
    )
    average = Average(allow_null=True, help_text="Null until the consumer has computed it.")
    raw = RawAnswer(allow_null=True, help_text="Without its body, which GET /raw/{id} gives.")
    raw_gone = serializers.BooleanField(help_text="The raw answer is no longer kept.")
    run = Run(allow_null=True, help_text="As in /jobs/{job_id}/runs; null once it is no longer kept.")
    job_id = serializers.UUIDField(allow_null=True, help_text="The job of the run.")
