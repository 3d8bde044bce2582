"""What requests with an Idempotency-Key were answered."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("prices", "0018_deleted_jobs_checked")]

    operations = [
        migrations.CreateModel(
            "IdempotencyKey",
            fields=[
                ("key", models.TextField(primary_key=True, serialize=False)),
                ("fingerprint", models.TextField()),
                ("answer", models.TextField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "idempotency_keys",
                "indexes": [models.Index(fields=["created_at"], name="idempotency_keys_created_at")],
            },
        ),
    ]
