"""What several commands take as an argument."""

import sys
from argparse import ArgumentTypeError


def positive(text: str) -> int:
    """Return a whole number above 0; raise ArgumentTypeError where it is none."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    # More than PostgreSQL counts to is all there are.
    return min(number, sys.maxsize)
