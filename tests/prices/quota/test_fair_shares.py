from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from prices.quota.fair_shares import FairShares

WANTS = st.lists(st.integers(1, 40), max_size=12)
CAPACITIES = st.integers(0, 150)
ENDLESS = 10**9


def share(wants: list[int], capacity: int) -> list[Fraction]:
    """Return the shares by definition: the smallest want first, each at most an equal part of the rest."""
    shares: dict[int, Fraction] = {}
    left = Fraction(capacity)
    for done, place in enumerate(sorted(range(len(wants)), key=lambda place: wants[place])):
        shares[place] = min(Fraction(wants[place]), left / (len(wants) - done))
        left -= shares[place]
    return [shares[place] for place in range(len(wants))]


@given(WANTS, CAPACITIES)
def test_shares_are_what_each_wants_or_the_level(wants: list[int], capacity: int) -> None:
    level = FairShares(wants, capacity).level()
    assert [min(want, level if level is not None else want) for want in wants] == share(wants, capacity)
    assert (level is None) == (sum(wants) <= capacity)


@given(WANTS, CAPACITIES)
def test_share_of_a_newcomer_without_end_is_the_level_with_it(wants: list[int], capacity: int) -> None:
    assert FairShares(wants, capacity).level_without_end(0) == share([*wants, ENDLESS], capacity)[-1]


@given(WANTS.filter(bool), CAPACITIES)
def test_share_of_a_member_without_end_replaces_what_it_wants(wants: list[int], capacity: int) -> None:
    for place, own in enumerate(wants):
        others = [*wants[:place], *wants[place + 1 :]]
        expected = share([*others, ENDLESS], capacity)[-1]
        assert FairShares(wants, capacity).level_without_end(own) == expected


def test_shares_of_nobody_have_no_level() -> None:
    assert FairShares([], 0).level() is None
    assert FairShares([], 7).level_without_end(0) == 7
