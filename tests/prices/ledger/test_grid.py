from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from prices.ledger.grid import next_slot, phase_of, run_id_of, slot_at

moments = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
intervals = st.integers(1, 86_400)


@given(moments, intervals, st.text())
def test_slot_is_the_latest_on_the_grid(now: datetime, interval: int, provider: str) -> None:
    phase = phase_of(provider, interval, ["A"])
    due = slot_at(now, interval, phase)
    assert due <= now < next_slot(now, interval, phase) == due + timedelta(seconds=interval)
    assert slot_at(due, interval, phase) == due


@given(intervals, st.lists(st.text(), min_size=1))
def test_phase_lies_within_interval_and_ignores_order(interval: int, symbols: list[str]) -> None:
    phase = phase_of("finnhub", interval, symbols)
    assert timedelta(0) <= phase < timedelta(seconds=interval)
    assert phase == phase_of("finnhub", interval, list(reversed(symbols)))


def test_phases_of_different_jobs_spread() -> None:
    seconds = {phase_of("finnhub", 60, [f"S{n}"]).seconds for n in range(1000)}
    assert len(seconds) == 60


def test_slots_a_day_later_have_not_drifted() -> None:
    phase = phase_of("finnhub", 7, ["A"])
    start = slot_at(datetime(2026, 11, 23, tzinfo=UTC), 7, phase)
    assert slot_at(start + timedelta(seconds=7 * 12_343, milliseconds=3), 7, phase) - start == timedelta(
        seconds=7 * 12_343
    )


@given(st.uuids(), moments)
def test_run_id_carries_its_time_and_is_valid(job_id: UUID, moment: datetime) -> None:
    due_at = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    run_id = run_id_of(job_id, due_at)
    assert run_id.int >> 80 == round(due_at.timestamp() * 1000)
    assert run_id.version == 8
    assert run_id == run_id_of(job_id, due_at)


def test_run_ids_of_other_jobs_and_slots_differ() -> None:
    due_at = datetime(2026, 11, 23, tzinfo=UTC)
    job_id = uuid4()
    ids = {
        run_id_of(job_id, due_at),
        run_id_of(job_id, due_at + timedelta(milliseconds=1)),
        run_id_of(uuid4(), due_at),
    }
    assert len(ids) == 3
