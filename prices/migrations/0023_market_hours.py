"""Jobs may be polled in their markets' hours alone.

Two columns that no row is written for, and a trigger: the table is locked for a moment.
"""

from django.db import migrations, models

_NOTE_CHANGES = """
CREATE OR REPLACE TRIGGER poll_jobs_note_change BEFORE UPDATE ON poll_jobs FOR EACH ROW
WHEN ((OLD.symbols, OLD.interval, OLD.provider, OLD.served_by, OLD.status)
      IS DISTINCT FROM (NEW.symbols, NEW.interval, NEW.provider, NEW.served_by, NEW.status))
EXECUTE FUNCTION poll_jobs_note_change()
"""
_NOTE_CHANGES_OF_HOURS = """
CREATE OR REPLACE TRIGGER poll_jobs_note_change BEFORE UPDATE ON poll_jobs FOR EACH ROW
WHEN ((OLD.symbols, OLD.interval, OLD.provider, OLD.served_by, OLD.status, OLD.market_hours,
       OLD.market_hours_from)
      IS DISTINCT FROM (NEW.symbols, NEW.interval, NEW.provider, NEW.served_by, NEW.status, NEW.market_hours,
                        NEW.market_hours_from))
EXECUTE FUNCTION poll_jobs_note_change()
"""


class Migration(migrations.Migration):
    dependencies = [("prices", "0022_average_batches")]

    operations = [
        migrations.AddField(
            "polljob",
            "market_hours",
            models.BooleanField(
                db_default=False,
                default=False,
                help_text="Poll each symbol in the hours of its market alone.",
            ),
        ),
        migrations.AddField(
            "polljob", "market_hours_from", models.DateTimeField(blank=True, editable=False, null=True)
        ),
        migrations.RunSQL(_NOTE_CHANGES_OF_HOURS, _NOTE_CHANGES),
    ]
