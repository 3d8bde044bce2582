"""Each check finds nothing on tables that are right, and finds what was made wrong in them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import connection

from dev.pytest_services import Services
from prices.database.uuid7 import new_ids
from prices.ledger.grid import next_slot, phase_of, run_id_of
from prices.models import PollGap, PollJob, PollRun, PricePoint, RawMarketData, SymbolAverage
from tests.chaos.averages import expected_rows
from tests.chaos.checks import BEAT_CHECKS
from tests.chaos.faults import CLOCK_AHEAD
from tests.chaos.poison import id_at, make_poison
from tests.chaos.slots import GapRow, History, count_slots, gaps_unsound, outages_of
from tests.chaos.world import Setting, World
from tests.conftest import MakeJob

BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)
NOW_MS = int(BEGIN.timestamp() * 1000)
PRICES = ["100", "101", "99", "102", "98", "0.000000000001", "99999999999"]

AVERAGE_ALL = """
    INSERT INTO symbol_averages (event_id, symbol, price, average, window_size, provider, observed_at)
    SELECT id, symbol, price, CASE WHEN count(*) OVER five = 5 THEN sum(price) OVER five * 0.2 END,
           count(*) OVER five, provider, observed_at
    FROM price_points
    WINDOW five AS (PARTITION BY symbol ORDER BY id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW)
"""
COPY = "SELECT (jsonb_populate_record(one, jsonb_build_object('id', uuidv7()))).*"
# The check that has to find it, and what is made wrong.
SPOILT = {
    "points missing: published, without an average row": "DELETE FROM symbol_averages WHERE window_size = 1",
    "average rows without a point": "DELETE FROM price_points WHERE price = 98",
    "averages wrong by the definition": "UPDATE symbol_averages SET average = average + 1 WHERE price = 98",
    "averages not right by verify_averages": "UPDATE symbol_averages SET average = 1 WHERE price = 98",
    "bars wrong by the definition": "INSERT INTO price_bars (symbol, interval, start, provider, currency,"
    " open, high, low, close, samples, first_observed_at, last_observed_at, revision)"
    " SELECT symbol, '1m', now(), provider, '', price, price, price, price, 1, now(), now(), 1"
    " FROM price_points LIMIT 1",
    "rows that the stream's client has not, or twice": "UPDATE symbol_averages SET tx = tx + 1"
    " WHERE price = 98",
    "slots fetched twice for a symbol": "INSERT INTO raw_market_data"
    f" {COPY} FROM raw_market_data one LIMIT 1",
    "symbols with more or fewer requests than slots": "UPDATE poll_runs SET state = 'shared'",
    "requests without a claimed slot": "DELETE FROM poll_runs",
    "slots claimed twice": "UPDATE poll_runs SET due_at = due_at - interval '0.1 s'"
    " WHERE due_at = (SELECT max(due_at) FROM poll_runs)",
    "slots without a run, and in no gap": "DELETE FROM poll_gaps",
    "gaps that are not right": "UPDATE poll_gaps SET slots = 3",
    "jobs accounted for beyond their end": "UPDATE poll_jobs SET accounted_until = accounted_until + '1 h'",
    "outages longer than a takeover": "UPDATE poll_gaps SET to_due = to_due + interval '3 s', slots = 5",
    "answers without all their quotes": "UPDATE raw_market_data SET symbols = '{SIM-JOB,SIM-OTHER}'",
    "prices not stored once as a point": f"INSERT INTO price_points {COPY} FROM price_points one LIMIT 1",
    "dead letters unexplained": "UPDATE dead_letters SET reason = 'none'",
    "poison not once among the dead letters": "DELETE FROM dead_letters",
}
WRONG_GAPS = {
    "not of the grid": "UPDATE poll_gaps SET to_due = to_due + interval '0.1 s'",
    "it has 2": "UPDATE poll_gaps SET slots = 1",
    "in another gap too": "INSERT INTO poll_gaps (job_id, from_due, to_due, slots, reason)"
    " SELECT job_id, to_due, to_due, 1, 'down' FROM poll_gaps",
    "polled too": "UPDATE poll_gaps SET from_due = from_due - interval '1 s', slots = 3",
}
FOUND_BY_THE_RUN = {"not recovered in time", "processes that crashed"}


@pytest.fixture
def world(
    transactional_db: None, topic: str, services: Services, tmp_path: Path, make_job: MakeJob
) -> Iterator[World]:
    """Yield the world of a run that went well, without the run."""
    world = World(Setting(seed=1, seconds=0, folder=tmp_path / "run"), services)
    job = make_job(["SIM-JOB"])
    first = next_slot(BEGIN, job.interval, phase_of(job.provider, job.interval, job.symbols))
    for number, price in enumerate(PRICES):
        poll(job, first + timedelta(seconds=number), price=price)
    miss(world, job, first + timedelta(seconds=len(PRICES)), slots=2)
    world.accounted_from = {job.id: BEGIN}
    with connection.cursor() as cursor:
        cursor.execute(AVERAGE_ALL)
    world.stream_client.connections = 1
    world.stream_client.versions = dict(SymbolAverage.objects.values_list("event_id", "tx"))
    swallow_poison(world)
    yield world
    world.close()


def poll(job: PollJob, due_at: datetime, *, price: str) -> None:
    run = PollRun.objects.create(
        id=run_id_of(job.id, due_at),
        job=job,
        due_at=due_at,
        state="stored",
        points=1,
        started_at=due_at,
        finished_at=due_at,
    )
    (raw_id,) = new_ids(1)
    RawMarketData.objects.create(
        id=raw_id,
        poll=run.id,
        provider="simulated",
        symbols=job.symbols,
        url="simulated:/quotes",
        outcome="quote",
        payload={"quotes": [{"symbol": job.symbols[0], "price": price}]},
        received_at=due_at,
        latency_ms=1,
    )
    PricePoint.objects.create(
        symbol=job.symbols[0],
        provider="simulated",
        price=Decimal(price),
        observed_at=due_at,
        precision="second",
        received_at=due_at,
        raw=raw_id,
        published_at=due_at,
    )


def miss(world: World, job: PollJob, first: datetime, *, slots: int) -> None:
    """Let the job's history end with a gap."""
    last = first + timedelta(seconds=slots - 1)
    PollGap.objects.create(job=job, from_due=first, to_due=last, slots=slots, reason="down")
    PollJob.objects.filter(id=job.id).update(accounted_until=last)
    world.stopped_at = world.ended_at = last


def swallow_poison(world: World) -> None:
    poison = make_poison(Random(1), now_ms=NOW_MS)
    world.traffic.poison[poison.key] = poison
    world.traffic.confirmed_poison.add(poison.key)
    world.log[2, 7] = (poison.key, poison.value)
    world.database.rows(
        'INSERT INTO dead_letters (topic, partition, "offset", message_timestamp, "group", key, value,'
        " reason) VALUES (%s, 2, 7, now(), 'chaos', %s, %s, %s)",
        [settings.KAFKA_TOPIC, poison.key, poison.value, f"because: {poison.reason}"],
    )


def found(world: World) -> dict[str, int]:
    counts = {check.name: len(check.find(world)) for check in BEAT_CHECKS}
    return {name: count for name, count in counts.items() if count}


def test_right_tables_are_found_right(world: World) -> None:
    assert found(world) == {}


@pytest.mark.parametrize("name", SPOILT)
def test_check_finds_what_was_made_wrong(world: World, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(SPOILT[name])
    assert name in found(world)


@pytest.mark.parametrize("wrong", WRONG_GAPS)
def test_gap_that_is_not_right_is_found(world: World, wrong: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(WRONG_GAPS[wrong])
    assert any(told.endswith(wrong) for told in gaps_unsound(world))


def test_abandoned_claim_may_lie_in_a_gap(world: World) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE poll_gaps SET from_due = from_due - interval '1 s', slots = 3")
        cursor.execute(
            "UPDATE poll_runs SET state = 'abandoned' WHERE due_at = (SELECT max(due_at) FROM poll_runs)"
        )
    assert gaps_unsound(world) == []


def test_slots_are_counted_by_what_became_of_them(world: World) -> None:
    counts = {"due": 9, "stored": 7, "gap: down": 2, "outages": 1, "longest outage, ms": 1000}
    assert count_slots(world) == counts
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM poll_gaps")
    assert count_slots(world) == {
        "due": 9,
        "stored": 7,
        "not accounted for": 2,
        "outages": 0,
        "longest outage, ms": 0,
    }


def test_slots_of_all_jobs_close_together_are_one_outage() -> None:
    seconds = timedelta(seconds=1)
    one, other, polled = (History(uuid4(), 2, 0 * seconds, BEGIN, BEGIN, BEGIN) for _ in range(3))
    one.gaps = [GapRow(BEGIN, BEGIN + 2 * seconds, 2, "down")]
    other.gaps = [GapRow(BEGIN + 1.8 * seconds, BEGIN + 5.8 * seconds, 3, "down")]
    polled.runs = dict.fromkeys([BEGIN + 2.1 * seconds, BEGIN + 5.5 * seconds], "stored")
    outages = outages_of([one, other, polled])
    assert [[(slot - BEGIN) / seconds for slot in outage] for outage in outages] == [[0, 1.8, 2, 3.8], [5.8]]


def test_confirmed_message_that_kafka_lost_is_found(world: World) -> None:
    world.log.clear()
    assert found(world) == {"dead letters unexplained": 1, "poison not once among the dead letters": 1}


def test_point_sent_ahead_of_kafkas_clock_explains_a_dead_letter(world: World) -> None:
    (point_id,) = PricePoint.objects.order_by("id").values_list("id", flat=True)[:1]
    event = json.dumps({"event_id": str(point_id)}).encode()
    world.database.rows(
        'INSERT INTO dead_letters (topic, partition, "offset", message_timestamp, "group", value, reason)'
        " VALUES (%s, 2, 8, now(), 'chaos', %s, 'event_id lies over 60 s ahead of the message''s time')",
        [settings.KAFKA_TOPIC, event],
    )
    assert found(world) == {"dead letters unexplained": 1}
    world.injected[CLOCK_AHEAD] += 1
    assert found(world) == {}
    PricePoint.objects.filter(id=point_id).delete()
    assert "dead letters unexplained" in found(world)


def test_crash_is_found_and_an_end_on_purpose_is_none(world: World) -> None:
    world.fleet.revived["consumer-1, exit code 1"] += 1
    assert found(world) == {}
    world.fleet.revived["consumer-2, exit code -6"] += 2
    assert found(world) == {"processes that crashed": 2}


def test_every_check_is_tried() -> None:
    assert {check.name for check in BEAT_CHECKS} == {*SPOILT, *FOUND_BY_THE_RUN}


def test_definition_takes_points_in_any_order() -> None:
    ids = [id_at(NOW_MS + number, Random(number)) for number in range(5)]
    points: list[tuple[UUID, str, str | None, Decimal, str, None]] = [
        (each, "SIM-A", "USD", Decimal(price), "chaos", None)
        for each, price in zip(ids, PRICES, strict=False)
    ]
    for order in permutations(points):
        rows = expected_rows(order)
        assert [rows[each].average for each in ids] == [None] * 4 + [100]
        assert [rows[each].size for each in ids] == [1, 2, 3, 4, 5]
