from django.db import migrations


class Migration(migrations.Migration):
    """A number that each rebuild of averages raises: consumers then read again what they remember.

    A sequence: it is never set back, and a rebuild that is rolled back only makes consumers read once more.
    The first value is drawn here, since last_value does not show whether it was.
    """

    dependencies = [("prices", "0003_job_keeps_its_provider")]

    operations = [
        migrations.RunSQL(
            "CREATE SEQUENCE averages_epoch; SELECT nextval('averages_epoch')",
            "DROP SEQUENCE averages_epoch",
        ),
    ]
