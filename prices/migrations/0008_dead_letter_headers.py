import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """Rows that exist keep no headers: what a consumer of before did not store is not known."""

    dependencies = [("prices", "0005_scheduling")]

    operations = [
        migrations.AddField(
            model_name="deadletter",
            name="headers",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=django.contrib.postgres.fields.ArrayField(
                    base_field=models.BinaryField(null=True), size=2
                ),
                null=True,
                size=None,
            ),
        ),
    ]
