"""What is kept of clocks that were wrong: differences now, and a database's clock that was set back."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("prices", "0012_sixteen_decimals_checked")]

    operations = [
        migrations.CreateModel(
            name="ClockDifference",
            fields=[
                (
                    "process",
                    models.TextField(help_text="Name and host.", primary_key=True, serialize=False),
                ),
                (
                    "ahead_s",
                    models.FloatField(help_text="Seconds ahead of PostgreSQL's clock; below 0: behind."),
                ),
                ("noted_at", models.DateTimeField()),
            ],
            options={"db_table": "clock_differences"},
        ),
        migrations.AddField(
            model_name="beatterm",
            name="clock_ahead_s",
            field=models.FloatField(null=True),
        ),
        # A worker compares the expiry of a message with its own clock.
        migrations.RunSQL(
            "UPDATE django_celery_beat_periodictask SET expire_seconds = NULL"
            " WHERE id IN (SELECT periodic_task_id FROM poll_jobs)",
            migrations.RunSQL.noop,
        ),
        migrations.AlterField(
            model_name="polljob",
            name="created_at",
            field=models.DateTimeField(default=django.utils.timezone.now, editable=False),
        ),
    ]
