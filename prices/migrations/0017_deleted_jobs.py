"""Jobs are marked as deleted: their rows stay."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("prices", "0016_jobs_filters")]

    operations = [
        migrations.AddField(
            "polljob", "deleted_at", models.DateTimeField(blank=True, editable=False, null=True)
        ),
        AddConstraintNotValid(
            "polljob",
            models.CheckConstraint(
                condition=Q(deleted_at=None) | Q(status="stopped"), name="poll_jobs_deleted_are_stopped"
            ),
        ),
    ]
