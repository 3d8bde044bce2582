"""raw_market_data: every answer of a provider, as it came, failures too."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Func, Q
from django.db.models.lookups import LessThanOrEqual

from prices.database.fields import UuidV7

BODY_LIMIT_BYTES = 64 * 1024


class OctetLength(Func):
    """The length of a bytea in bytes."""

    function = "octet_length"
    arity = 1
    output_field = models.IntegerField()


class Outcome(models.TextChoices):
    """What a request came to: at least one quote, or the kind of its error."""

    QUOTE = "quote"
    UNKNOWN_SYMBOL = "unknown_symbol"
    RATE_LIMITED = "rate_limited"
    INVALID_KEY = "invalid_key"
    NOT_ENTITLED = "not_entitled"
    UPSTREAM_ERROR = "upstream_error"
    MALFORMED = "malformed"


class RawMarketData(models.Model):
    """One request to a provider and its answer, redacted.

    `status` is null where no answer came (time-out, refused). `payload` holds the body where it
    is JSON that PostgreSQL can hold; else `body` holds its first 64 KiB.
    """

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    poll = models.UUIDField(null=True, help_text="The poll run that asked; empty for GET /prices/latest.")
    is_fallback = models.BooleanField(
        db_default=False, help_text="The job's own provider had failed: what GET latest may use paid for it."
    )
    provider = models.TextField()
    symbols = ArrayField(models.TextField())
    url = models.TextField(help_text="What was asked, without the key.")
    status = models.PositiveSmallIntegerField(null=True, help_text="HTTP status; empty where no answer came.")
    outcome = models.TextField(choices=Outcome.choices)
    message = models.TextField(blank=True, help_text="What the error said, in our words.")
    payload = models.JSONField(null=True)
    body = models.BinaryField(null=True)
    received_at = models.DateTimeField()
    latency_ms = models.FloatField()

    class Meta:
        db_table = "raw_market_data"
        verbose_name = verbose_name_plural = "raw market data"
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__in=Outcome.values), name="raw_market_data_outcome_known"
            ),
            models.CheckConstraint(
                condition=Q(body__isnull=True) | Q(payload__isnull=True), name="raw_market_data_one_form"
            ),
            models.CheckConstraint(
                condition=Q(LessThanOrEqual(OctetLength("body"), BODY_LIMIT_BYTES)),
                name="raw_market_data_body_small",
            ),
        ]
        indexes = [
            models.Index(fields=["provider", "id"], name="raw_market_data_provider_id"),
            GinIndex(fields=["symbols"], name="raw_market_data_symbols"),
            models.Index(fields=["poll"], condition=Q(poll__isnull=False), name="raw_market_data_poll"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {','.join(self.symbols)} {self.outcome}"
