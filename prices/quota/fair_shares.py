"""Fair sharing of a budget: who wants little gets it all, the rest is shared equally.

Max-min fairness ("water filling"): the level is the height at which the budget is used up, and everyone
gets what they want or the level, whichever is less. So nobody can get more without taking it from
somebody who has no more than they have.
"""

from bisect import bisect_left
from collections.abc import Iterable
from fractions import Fraction
from itertools import accumulate

# Wants are whole numbers of billionths of a request in a window: sums stay exact, and small, where sums of
# fractions of ten thousand different intervals have denominators without end.
UNITS = 10**9


class FairShares:
    """Shares of `capacity` among `wants`, all in units."""

    def __init__(self, wants: Iterable[int], capacity: int) -> None:
        self._wants = sorted(wants)
        self._capacity = capacity
        # Of the first n wants, by n.
        self._sums = [0, *accumulate(self._wants)]

    @property
    def wanted(self) -> int:
        """What all want together, in units."""
        return self._sums[-1]

    def level(self) -> Fraction | None:
        """Return the most that anyone gets, in units; None where all get what they want."""
        if self.wanted <= self._capacity:
            return None
        return self._solve(present=0, asking=0)

    def level_without_end(self, own: int) -> Fraction:
        """Return what one would get who wanted without end, in units.

        `own` is what the same one wants now, 0 where that is not among the wants.
        """
        return self._solve(present=own, asking=1)

    def _solve(self, *, present: int, asking: int) -> Fraction:
        """Find the level at which the wants, with `asking` endless ones in place of `present`, fill it."""
        count = len(self._wants)

        def is_over(number: int) -> bool:
            level = self._wants[number]
            used = self._sums[number] + (count - number + asking) * level - min(present, level)
            return used > self._capacity

        # Those before `first` get what they want, the others the level.
        first = bisect_left(range(count), True, key=is_over)
        left, sharers = self._capacity - self._sums[first], count - first + asking
        if first == count or present < self._wants[first]:
            return Fraction(left + present, sharers)
        return Fraction(left, sharers - 1)
