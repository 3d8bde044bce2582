"""What the scheduler needs: changed jobs at a glance, slots accounted for, and who led when."""

import django.db.models.functions.datetime
from django.db import migrations, models

import prices.database.fields

_NOTE_CHANGES = """
CREATE FUNCTION poll_jobs_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;

CREATE TRIGGER poll_jobs_note_change BEFORE UPDATE ON poll_jobs FOR EACH ROW
WHEN ((OLD.symbols, OLD.interval, OLD.provider, OLD.served_by, OLD.status)
      IS DISTINCT FROM (NEW.symbols, NEW.interval, NEW.provider, NEW.served_by, NEW.status))
EXECUTE FUNCTION poll_jobs_note_change();
"""


class Migration(migrations.Migration):
    dependencies = [("prices", "0004_averages_epoch")]

    operations = [
        migrations.CreateModel(
            name="BeatTerm",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("holder", models.TextField(help_text="Host and process.")),
                ("began_at", models.DateTimeField()),
                ("renewed_at", models.DateTimeField()),
                ("until", models.DateTimeField()),
            ],
            options={"db_table": "beat_terms"},
        ),
        migrations.AddIndex(
            model_name="beatterm",
            index=models.Index(fields=["renewed_at"], name="beat_terms_renewed_at"),
        ),
        migrations.AddField(
            model_name="polljob",
            name="changed",
            field=models.BigIntegerField(
                db_default=prices.database.fields.CurrentTransaction(), editable=False
            ),
        ),
        migrations.AddField(
            model_name="polljob",
            name="accounted_until",
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
        ),
        migrations.AddIndex(
            model_name="polljob",
            index=models.Index(fields=["changed"], name="poll_jobs_changed"),
        ),
        migrations.RunSQL(
            _NOTE_CHANGES,
            "DROP TRIGGER poll_jobs_note_change ON poll_jobs; DROP FUNCTION poll_jobs_note_change()",
        ),
    ]
