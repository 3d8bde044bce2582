"""The terms of beat: when somebody sent what was due."""

from datetime import datetime, timedelta

from prices.models import BeatTerm
from prices.slot_ranges import Term

# A leader notes each half a second that it still leads.
RENEWED_WITHIN = timedelta(seconds=0.5)


def read_terms(since: datetime, until: datetime) -> list[Term]:
    """Give the terms that touch this time, in order; those that follow each other within moments are one."""
    rows = BeatTerm.objects.filter(renewed_at__gte=since - RENEWED_WITHIN, began_at__lte=until)
    terms: list[Term] = []
    for began_at, renewed_at in rows.order_by("began_at").values_list("began_at", "renewed_at"):
        ended_at = renewed_at + RENEWED_WITHIN
        if terms and began_at <= terms[-1].ended_at:
            terms[-1] = Term(terms[-1].began_at, max(terms[-1].ended_at, ended_at))
        else:
            terms.append(Term(began_at, ended_at))
    return terms
