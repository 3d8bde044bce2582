from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("prices", "0009_averages_by_currency")]
    operations = [
        migrations.AddField(
            model_name="rawmarketdata",
            name="is_fallback",
            field=models.BooleanField(
                db_default=False,
                help_text="The job's own provider had failed: what GET latest may use paid for it.",
            ),
        ),
    ]
