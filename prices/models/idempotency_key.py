"""idempotency_keys: clients' names for requests, so that one that comes again is answered as before."""

from django.db import models


class IdempotencyKey(models.Model):
    """A key that a request had which created a job, and the answer.

    `fingerprint` tells whether another request is the same, `answer` holds body and headers as JSON: as text,
    since a jsonb would not keep their order.
    """

    key = models.TextField(primary_key=True)
    fingerprint = models.TextField()
    answer = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "idempotency_keys"
        indexes = [models.Index(fields=["created_at"], name="idempotency_keys_created_at")]

    def __str__(self) -> str:
        return self.key
