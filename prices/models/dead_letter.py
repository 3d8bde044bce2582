"""dead_letters: messages of the topic that could not be read, with the reason."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from prices.database.fields import UuidV7


class DeadLetter(models.Model):
    """A message that the consumer could not use, as it was.

    `headers` holds a name and a value for each header, in their order; it is null where they are not known:
    their names could not be read, or the row was written before headers were kept.
    The message's timestamp is part of what tells one from another: offsets begin again at 0
    where a topic was made anew.
    """

    id = models.UUIDField(primary_key=True, db_default=UuidV7(), editable=False)
    topic = models.TextField()
    partition = models.PositiveIntegerField()
    offset = models.PositiveBigIntegerField()
    message_timestamp = models.DateTimeField(help_text="The broker's time of the message.")
    group = models.TextField(help_text="The consumer group that refused it.")
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = ArrayField(ArrayField(models.BinaryField(null=True), size=2), null=True)
    reason = models.TextField()
    created_at = models.DateTimeField(db_default=Now())
    replayed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "dead_letters"
        constraints = [
            models.UniqueConstraint(
                fields=["topic", "partition", "offset", "message_timestamp"], name="dead_letters_message"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}: {self.reason}"
