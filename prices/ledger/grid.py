"""The grid on which jobs are polled: due = phase + k x interval, counted from the epoch.

The phase comes from what a job asks for, so equal jobs fall due together (one answer can serve
them all) and different ones spread over the interval.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from prices.database.uuid7 import EPOCH

_HASH_BITS = 80


def phase_of(provider: str | None, interval: int, symbols: Sequence[str]) -> timedelta:
    """Return the offset of a job's slots within its interval (seconds), to the millisecond."""
    words = "\0".join([provider or "", str(interval), *sorted(symbols)])
    number = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8])
    return timedelta(milliseconds=number % (interval * 1000))


def slot_at(now: datetime, interval: int, phase: timedelta) -> datetime:
    """Return the latest slot that is not after `now`."""
    step = timedelta(seconds=interval)
    return now - (now - EPOCH - phase) % step


def next_slot(now: datetime, interval: int, phase: timedelta) -> datetime:
    """Return the first slot after `now`."""
    return slot_at(now, interval, phase) + timedelta(seconds=interval)


def run_id_of(job_id: UUID, due_at: datetime) -> UUID:
    """Return the id of the run of this slot: 48 bits of milliseconds, then a hash of the job.

    The same slot always gives the same id, so a second claim conflicts; and rows lie in the order
    of time, as partitions need. Version 8 (RFC 9562) is the one for layouts of one's own.
    """
    milliseconds = (due_at - EPOCH) // timedelta(milliseconds=1)
    job_bits = int.from_bytes(hashlib.sha256(job_id.bytes).digest()[: _HASH_BITS // 8])
    number = (milliseconds << _HASH_BITS) | job_bits
    number = number & ~(0xF << 76) | (8 << 76)
    return UUID(int=number & ~(0x3 << 62) | (0x2 << 62))
