"""Jobs, the gaps in what they polled, and dead letters."""

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.lookups
from django.db import migrations, models

import prices.database.fields
import prices.models.raw_market_data
import prices.models.symbol_average


class Migration(migrations.Migration):
    initial = True
    dependencies = [("django_celery_beat", "0019_alter_periodictasks_options")]

    operations = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=prices.database.fields.UuidV7(),
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("topic", models.TextField()),
                ("partition", models.PositiveIntegerField()),
                ("offset", models.PositiveBigIntegerField()),
                ("message_timestamp", models.DateTimeField(help_text="The broker's time of the message.")),
                ("group", models.TextField(help_text="The consumer group that refused it.")),
                ("key", models.BinaryField(null=True)),
                ("value", models.BinaryField(null=True)),
                ("reason", models.TextField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("replayed_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "dead_letters",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("topic", "partition", "offset", "message_timestamp"),
                        name="dead_letters_message",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PollJob",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=prices.database.fields.UuidV7(),
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "symbols",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None),
                ),
                ("interval", models.PositiveIntegerField(help_text="Seconds between polls.")),
                (
                    "provider",
                    models.TextField(blank=True, help_text="Empty: the service chooses.", null=True),
                ),
                (
                    "status",
                    models.TextField(
                        choices=[("active", "Active"), ("paused", "Paused"), ("stopped", "Stopped")],
                        default="active",
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("last_run_at", models.DateTimeField(blank=True, null=True)),
                ("last_success_at", models.DateTimeField(blank=True, null=True)),
                ("last_error", models.TextField(blank=True)),
                (
                    "failures",
                    models.PositiveIntegerField(
                        default=0, help_text="Polls that failed since the last good one."
                    ),
                ),
                (
                    "periodic_task",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="poll_job",
                        to="django_celery_beat.periodictask",
                    ),
                ),
            ],
            options={
                "db_table": "poll_jobs",
            },
        ),
        migrations.CreateModel(
            name="PollGap",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=prices.database.fields.UuidV7(),
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("from_due", models.DateTimeField()),
                ("to_due", models.DateTimeField()),
                ("slots", models.PositiveIntegerField()),
                ("reason", models.TextField()),
                (
                    "job",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="gaps",
                        to="prices.polljob",
                    ),
                ),
            ],
            options={
                "db_table": "poll_gaps",
            },
        ),
        migrations.AddIndex(
            model_name="polljob",
            index=models.Index(fields=["status", "id"], name="poll_jobs_status_id"),
        ),
        migrations.AddConstraint(
            model_name="polljob",
            constraint=models.CheckConstraint(
                condition=models.Q(("interval__range", (1, 86400))), name="poll_jobs_interval_range"
            ),
        ),
        migrations.AddConstraint(
            model_name="polljob",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["active", "paused", "stopped"])),
                name="poll_jobs_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="polljob",
            constraint=models.CheckConstraint(
                condition=models.Q(("symbols__len__range", (1, 100))), name="poll_jobs_symbols_count"
            ),
        ),
        migrations.AddConstraint(
            model_name="pollgap",
            constraint=models.CheckConstraint(
                condition=models.Q(("slots__gte", 1)), name="poll_gaps_slots_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="pollgap",
            constraint=models.CheckConstraint(
                condition=models.Q(("to_due__gte", models.F("from_due"))), name="poll_gaps_range_forward"
            ),
        ),
        migrations.AddConstraint(
            model_name="pollgap",
            constraint=models.UniqueConstraint(fields=("job", "from_due"), name="poll_gaps_job_from_due"),
        ),
    ]
