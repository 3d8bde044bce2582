"""Column types that Django does not have."""

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Func, Q
from django.db.models.lookups import LessThanOrEqual

if TYPE_CHECKING:
    # The column's null decides whether a row's value may be None, which a base class cannot say.
    DecimalColumn = models.Field[Any, Any]
else:
    DecimalColumn = models.Field

PRICE_LIMIT = Decimal(10) ** 12
PRICE_DECIMALS = 16


class ExactDecimalField(DecimalColumn):
    """A `numeric` column without a fixed scale: what was written is read back, digit for digit.

    Django's DecimalField rounds to its decimal_places; prices have as many decimals as their
    provider gave them.
    """

    description = "Exact decimal"

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "numeric"

    def to_python(self, value: Any) -> Decimal | None:
        """Return a Decimal. Raises ValidationError for what is no number."""
        if value is None or isinstance(value, Decimal):
            return value
        try:
            return Decimal(str(value))
        except InvalidOperation as error:
            raise ValidationError("Enter a number.", code="invalid") from error

    def get_prep_value(self, value: Any) -> Decimal | None:
        return self.to_python(super().get_prep_value(value))


class UuidV7(Func):
    """PostgreSQL's `uuidv7()`: ids from one clock, in the order in which they were made."""

    function = "uuidv7"
    template = "%(function)s()"
    arity = 0
    output_field = models.UUIDField()


class CurrentTransaction(Func):
    """The id of the writing transaction: what a reader of the table can resume from."""

    template = "(pg_current_xact_id()::text)::bigint"
    arity = 0
    output_field = models.BigIntegerField()


class Scale(Func):
    """The number of decimals of a numeric."""

    function = "scale"
    arity = 1
    output_field = models.IntegerField()


def price_is_sound(column: str) -> Q:
    """Return the condition that every stored price meets: above 0, below 10^12, at most 16 decimals."""
    return (
        Q(**{f"{column}__gt": 0})
        & Q(**{f"{column}__lt": PRICE_LIMIT})
        & Q(LessThanOrEqual(Scale(column), PRICE_DECIMALS))
    )
