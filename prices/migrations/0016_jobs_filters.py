"""Jobs are found by status, provider and symbol, however many were stopped."""

from django.contrib.postgres.indexes import GinIndex
from django.db import migrations, models
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from prices.database.online_indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("prices", "0015_bars")]

    operations = [
        AddIndexOnline(
            "polljob",
            models.Index(fields=["id"], condition=~Q(status="stopped"), name="poll_jobs_going_on_id"),
        ),
        AddIndexOnline(
            "polljob",
            models.Index(Coalesce("provider", "served_by"), F("id"), name="poll_jobs_provider_id"),
        ),
        AddIndexOnline("polljob", GinIndex(fields=["symbols"], name="poll_jobs_symbols")),
    ]
