"""What was written together is known for a week, and from where on it is known is known for good."""

from datetime import UTC, datetime, timedelta

import pytest

from prices.maintenance import retention
from prices.maintenance.retention import BATCHES_KEPT_FOR, delete_old_batches
from prices.models import AverageBatch

pytestmark = pytest.mark.django_db
NOW = datetime(2031, 5, 6, tzinfo=UTC)


@pytest.fixture(autouse=True)
def five_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be batches of five days: 100 and 101 up to 140 and 141, the last one written at NOW."""
    monkeypatch.setattr(retention, "BATCHES_AT_ONCE", 3)
    AverageBatch.objects.all().delete()
    AverageBatch.objects.bulk_create(
        AverageBatch(
            tx=tx + more, number=0, rows=0, added=[], changed=[], written_at=NOW - timedelta(days=days)
        )
        for days, tx in zip(range(4, -1, -1), range(100, 150, 10), strict=True)
        for more in range(2)
    )


def add_batches(*transactions: int, written_at: datetime) -> None:
    AverageBatch.objects.bulk_create(
        AverageBatch(tx=tx, number=0, rows=0, added=[], changed=[], written_at=written_at)
        for tx in transactions
    )


def kept() -> list[int]:
    return list(AverageBatch.objects.order_by("tx").values_list("tx", flat=True))


def test_batches_of_a_week_stay() -> None:
    assert delete_old_batches(now=NOW + BATCHES_KEPT_FOR - timedelta(days=4)) == 0
    assert len(kept()) == 10


def test_older_ones_go_but_for_the_last_of_them() -> None:
    """Where it is the first one left, nothing is missing after it."""
    assert delete_old_batches(now=NOW + BATCHES_KEPT_FOR - timedelta(days=2, hours=1)) == 3
    assert kept() == [111, *(120, 121), *(130, 131), *(140, 141)]


def test_last_batch_stays_however_old_it_is() -> None:
    assert delete_old_batches(now=NOW + timedelta(days=1_000)) == 9
    assert kept() == [141]


def test_batches_of_a_cluster_that_was_further_go_at_once() -> None:
    """As after a dump is restored: else they would pass for new ones once this one has come so far."""
    add_batches(1 << 62, written_at=NOW)
    assert delete_old_batches(now=NOW) == 1
    assert len(kept()) == 10
