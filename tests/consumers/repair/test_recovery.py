"""Prices whose messages Kafka deleted before anybody read them are averaged from price_points."""

import logging
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from django.db import connection

from consumers.averages.store import AverageStore
from consumers.handler import AverageHandler
from consumers.reading.group import AFTER_ALL, oldest_time
from consumers.reading.lag import read_lag
from consumers.repair import rebuild
from consumers.repair.rebuild import RebuildError, recover_averages
from prices.models import SymbolAverage
from tests.consumers.running import committed, running, trim
from tests.consumers.samples import BEGIN, assert_averages_right, event, point, points_of, produce
from tests.consumers.stopped_backend import stopped_backends
from tests.consumers.unchanging import unchanging_rows
from tests.logged import events_logged
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
NOW = BEGIN + timedelta(hours=1)


def recover(before: datetime = NOW) -> int | None:
    return recover_averages(before=before, is_stopped=lambda: False)


def test_point_without_an_average_gets_one() -> None:
    point(0)
    assert recover() == 1
    assert recover() == 0
    assert_averages_right([event(0)])


def test_points_that_are_older_are_needed() -> None:
    assert recover() is None
    point(0, published=False)
    assert recover() is None
    point(1)
    assert recover(before=BEGIN) is None
    assert recover() == 1


def test_empty_partition_leaves_out_no_price_whatever_this_hosts_clock_says(topic: str) -> None:
    point(0)
    before = oldest_time([TopicPartition(topic, 0, 0)])
    assert before == AFTER_ALL
    assert recover(before) == 1


def test_search_that_takes_too_long_is_told_as_one_to_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    point(0)
    monkeypatch.setattr(rebuild, "_SEARCH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(rebuild, "_REACHES_BACK", "SELECT pg_sleep(5) IS NOT NULL AND %s::uuid IS NOT NULL")
    with pytest.raises(RebuildError, match="transaction timeout"):
        recover()


def test_points_that_wait_in_the_outbox_are_left() -> None:
    point(0)
    point(1, published=False)
    assert recover() == 1
    assert_averages_right([event(0)])


def test_stopped_recovery_is_not_done() -> None:
    point(0)
    with pytest.raises(RebuildError, match="stopped"):
        recover_averages(before=NOW, is_stopped=lambda: True)


def test_another_rebuild_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.averages.connection.LOCK_TIMEOUT_MS", 20)
    point(0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('rebuild_averages'))")
        with pytest.raises(RebuildError, match="another rebuild_averages"):
            recover()
        cursor.execute("SELECT pg_advisory_unlock(hashtext('rebuild_averages'))")
    assert recover() == 1


@pytest.mark.usefixtures("topic", "heartbeats")
def test_group_without_offsets_on_a_trimmed_log_leaves_no_hole(caplog: pytest.LogCaptureFixture) -> None:
    """Each average that was ever stored is of a whole window: no row changes after it was written."""
    symbols = ["SIM-A", "SIM-B", "SIM-C", "SIM-D"]
    points = [
        each for number in range(20) for each in points_of(number, dict.fromkeys(symbols, str(number + 1)))
    ]
    produce(points)
    for partition, end in ends().items():
        trim(partition, before=end // 2)
    with unchanging_rows(), caplog.at_level(logging.INFO), running(AverageHandler(AverageStore())):
        wait_until(lambda: committed(ends()) == ends(), timeout_s=20)
    assert SymbolAverage.objects.count() == len(points)
    assert events_logged(caplog)["batch.refused"] == 0
    assert events_logged(caplog)["log.trimmed"] == 1
    assert_averages_right(
        event(number, symbol=symbol, price=str(number + 1)) for number in range(20) for symbol in symbols
    )


def ends() -> dict[int, int]:
    return {each.partition: each.end for each in read_lag() if each.end > 0}


def test_search_goes_through_all_days() -> None:
    day_ms = 86_400_000
    point(-400 * day_ms)
    assert recover() == 1
    point(-3 * day_ms)
    point(0)
    assert recover() == 2
    assert recover(AFTER_ALL) == 0


def test_search_in_a_postgresql_that_stands_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "SEARCH_LIMIT_S", 0.5)
    point(0)
    first_id = rebuild._first_id

    def stand_still(*arguments: Any) -> Any:
        stopped.enter_context(stopped_backends())
        return first_id(*arguments)

    monkeypatch.setattr(rebuild, "_first_id", stand_still)
    with ExitStack() as stopped, pytest.raises(RebuildError):
        recover()
