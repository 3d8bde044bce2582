"""api_clients and api_keys: who calls, and the keys that they call with."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from prices.database.fields import UuidV7


class Scope(models.TextChoices):
    """What a key opens."""

    READ = "read"
    JOBS = "jobs"
    INGEST = "ingest"
    ADMIN = "admin"


SCOPES_IN_WORDS = (
    "read (prices), jobs (the client's own jobs), ingest (handing in prices, which no call of this version"
    " does), admin (all of it, of every client)"
)


class ApiClient(models.Model):
    """Somebody who calls: a program, a team. Its jobs are its own, whichever of its keys made them."""

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    name = models.TextField(unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "api_clients"
        verbose_name = "API client"

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A key of a client. What opens is not kept: `digest` is its SHA-256, `prefix` its public beginning.

    Rows stay after the key was revoked or has expired, so that whoever still uses it can be told so.
    """

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="keys")
    prefix = models.TextField(unique=True, editable=False)
    digest = models.TextField(editable=False)
    scopes = ArrayField(models.TextField(choices=Scope.choices))
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "api_keys"
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=Q(scopes__contained_by=Scope.values) & Q(scopes__len__gte=1),
                name="api_keys_scopes_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… of {self.client}"
