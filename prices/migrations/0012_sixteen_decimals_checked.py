from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("prices", "0011_sixteen_decimals")]

    operations = [
        ValidateConstraint("pricepoint", "price_points_price_sound"),
        ValidateConstraint("symbolaverage", "symbol_averages_price_sound"),
    ]
