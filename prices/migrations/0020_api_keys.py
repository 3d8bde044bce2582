"""Clients and their keys; jobs belong to the client that made them. Those of before belong to everybody."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import prices.database.fields

_SCOPES = [("read", "Read"), ("jobs", "Jobs"), ("ingest", "Ingest"), ("admin", "Admin")]


class Migration(migrations.Migration):
    dependencies = [("prices", "0019_idempotency_keys")]

    operations = [
        migrations.CreateModel(
            "ApiClient",
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
                ("name", models.TextField(unique=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={"db_table": "api_clients", "verbose_name": "API client"},
        ),
        migrations.CreateModel(
            "ApiKey",
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
                ("prefix", models.TextField(editable=False, unique=True)),
                ("digest", models.TextField(editable=False)),
                (
                    "scopes",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(choices=_SCOPES), size=None
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
                (
                    "client",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="keys",
                        to="prices.apiclient",
                    ),
                ),
            ],
            options={
                "db_table": "api_keys",
                "verbose_name": "API key",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("scopes__contained_by", ["read", "jobs", "ingest", "admin"]),
                            ("scopes__len__gte", 1),
                        ),
                        name="api_keys_scopes_known",
                    )
                ],
            },
        ),
        migrations.AddField(
            "polljob",
            "client",
            models.ForeignKey(
                blank=True,
                db_index=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="jobs",
                to="prices.apiclient",
            ),
        ),
    ]
