"""One beat leads; the next one begins when its lease has run out, never before."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from dev.pytest_services import Services
from prices.models import BeatTerm
from prices.scheduling.leader_lease import LEASE_S, RENEW_EACH_S, BeatLease
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lease() -> Iterator[BeatLease]:
    made = BeatLease()
    yield made
    made.release()


def leads(lease: BeatLease) -> bool:
    lease.keep()
    return lease.term is not None


def test_first_beat_leads_and_another_one_stands_by(lease: BeatLease) -> None:
    assert leads(lease)
    other = BeatLease()
    assert not leads(other)
    (term,) = BeatTerm.objects.all()
    assert (term.id, term.holder) == (lease.term.id if lease.term else None, lease.holder)
    assert lease.term is not None
    assert lease.term.led_before is None


def test_lease_is_renewed_for_as_long_as_it_is_kept(lease: BeatLease) -> None:
    assert leads(lease)
    began = BeatTerm.objects.get()
    deadline = time.monotonic() + LEASE_S + 1
    while time.monotonic() < deadline:
        assert leads(lease)
        assert not leads(BeatLease())
        time.sleep(lease.seconds_left)
    term = BeatTerm.objects.get()
    assert term.renewed_at - began.renewed_at > timedelta(seconds=LEASE_S)


def test_lease_that_is_not_kept_goes_to_another_and_never_to_two(lease: BeatLease) -> None:
    assert leads(lease)
    last = BeatTerm.objects.get().renewed_at
    other = BeatLease()
    began = time.monotonic()

    def goes_over() -> bool:
        # The first holder no longer trusts its lease when the other one gets it.
        assert lease.term is None or other.term is None
        return leads(other)

    wait_until(goes_over)
    assert LEASE_S - RENEW_EACH_S < time.monotonic() - began < LEASE_S + 20
    assert other.term is not None
    assert other.term.led_before == last
    assert not leads(lease)
    other.release()


def test_released_lease_is_free_at_once(lease: BeatLease) -> None:
    assert leads(lease)
    lease.release()
    other = BeatLease()
    assert leads(other)
    other.release()


def test_lease_that_another_has_taken_meanwhile_is_not_released(lease: BeatLease) -> None:
    assert leads(lease)
    BeatTerm.objects.update(until=timezone.now())
    other = BeatLease()
    assert leads(other)
    lease.release()
    assert BeatTerm.objects.filter(until__gt=timezone.now()).count() == 1
    other.release()


def set_back(hours: int) -> None:
    """Make the rows what they are once the database's clock was set back: of a time to come."""
    ahead = timedelta(hours=hours)
    moved = {name: F(name) + ahead for name in ("began_at", "renewed_at", "until")}
    BeatTerm.objects.update(**moved)


def test_term_of_a_clock_that_was_set_back_keeps_nobody_from_leading(lease: BeatLease) -> None:
    now = timezone.now()
    BeatTerm.objects.create(holder="ended", began_at=now, renewed_at=now, until=now)
    set_back(hours=1)
    assert leads(lease)
    assert not leads(BeatLease())


def test_leader_begins_a_new_term_where_the_clock_is_set_back(lease: BeatLease) -> None:
    assert leads(lease)
    before = lease.term
    set_back(hours=1)
    wait_until(lambda: leads(lease) and lease.term != before)
    assert not leads(BeatLease())
    first, noted, second = BeatTerm.objects.order_by("id")
    # Noted beside the leases: how far the clock was set back, and since when this one had led by it.
    assert noted.clock_ahead_s == pytest.approx(3600, abs=3)
    assert noted.renewed_at - noted.began_at == first.renewed_at - first.began_at
    assert (first.clock_ahead_s, second.clock_ahead_s) == (None, None)
    lease.release()
    other = BeatLease()
    assert leads(other)
    # The one before it led until a moment ago, not in the time to come.
    assert other.term is not None
    assert other.term.led_before == BeatTerm.objects.order_by("id")[2].renewed_at
    other.release()


def test_of_many_that_ask_at_once_one_leads() -> None:
    results: list[bool] = []

    def ask() -> None:
        try:
            results.append(leads(BeatLease()))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 15 + [True]
    BeatTerm.objects.update(until=timezone.now())


def test_database_away_is_waited_for(lease: BeatLease, services: Services) -> None:
    assert leads(lease)
    services.postgres.stop()
    try:
        wait_until(lambda: not leads(lease))
    finally:
        services.postgres.start()
    wait_until(lambda: leads(lease))
