"""Numbers as the pages show them: with their own digits."""

from decimal import Decimal

from django import template

register = template.Library()

# Percent and differences are for the eye: two decimals more than a price of 100 has.
_STEPS = Decimal("0.01")
_MINUS = "\u2212"


@register.filter
def digits(number: Decimal) -> str:
    """Return a number with all of its digits: 12,345.6700."""
    return f"{number:,f}"


@register.filter
def grouped(count: int) -> str:
    """Return a count with its thousands apart: 12,345."""
    return f"{count:,}"


@register.filter
def signed(number: Decimal) -> str:
    """Return a difference with all of its digits and its sign."""
    return f"{number:+,f}".replace("-", _MINUS)


@register.filter
def percent(number: Decimal) -> str:
    """Return a percentage with two decimals and its sign; 0.00 has none."""
    rounded = number.quantize(_STEPS)
    return f"{rounded:+,f} %".replace("-", _MINUS) if rounded else "0.00 %"


@register.filter
def direction(number: Decimal) -> str:
    """Return up, down or same."""
    return "up" if number > 0 else "down" if number < 0 else "same"
