from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("prices", "0002_partitioned_tables")]

    operations = [
        migrations.AddField(
            model_name="polljob",
            name="served_by",
            field=models.TextField(
                blank=True,
                help_text="Who is asked where no provider is named: who served last.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="pollrun",
            name="points",
            field=models.PositiveIntegerField(default=0, help_text="Prices that answered the slot."),
        ),
    ]
