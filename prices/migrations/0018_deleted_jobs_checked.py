"""What takes longer than a moment of the table's lock: the rows that are there, and an index."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations, models
from django.db.models import Q

from prices.database.online_indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("prices", "0017_deleted_jobs")]

    operations = [
        ValidateConstraint("polljob", "poll_jobs_deleted_are_stopped"),
        AddIndexOnline(
            "polljob",
            models.Index(fields=["id"], condition=Q(deleted_at=None), name="poll_jobs_kept_id"),
        ),
    ]
