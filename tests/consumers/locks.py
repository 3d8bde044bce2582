"""Locks of symbols, held by somebody else."""

from collections.abc import Iterator
from contextlib import contextmanager

from consumers.averages.connection import connect
from consumers.averages.statements import lock_symbols


@contextmanager
def held_lock(symbol: str) -> Iterator[None]:
    """Hold the lock of a symbol's rows for as long as the block runs."""
    with connect() as other:
        # A process that a test waits for may take longer to start than a consumer's transaction may.
        other.execute("SET transaction_timeout = 0")
        with other.transaction():
            lock_symbols(other.cursor(), [symbol])
            yield
