"""A client's jobs are found among those of others."""

from django.db import migrations, models

from prices.database.online_indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("prices", "0020_api_keys")]

    operations = [
        AddIndexOnline("polljob", models.Index(fields=["client", "id"], name="poll_jobs_client_id")),
    ]
