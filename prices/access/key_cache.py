"""Keys as they were read from the table: to read one at each call halves how many calls are answered.

A key that was read in another generation is read again, and so is one after KEPT_S, should Redis not have
been told of a revocation, or have forgotten it.
"""

import hashlib
import time
from dataclasses import dataclass

from prices.access.keys import FoundKey

KEPT_S = 10.0
_MOST_KEPT = 10_000

# By the hash of what a caller sends, so that no key lies in memory.
_kept: dict[bytes, "_KeptKey"] = {}


@dataclass(frozen=True, slots=True)
class _KeptKey:
    found: FoundKey
    generation: bytes
    read_at: float


def keep_key(text: str, found: FoundKey, generation: bytes) -> None:
    """Keep a key that was read from the table after the generation was."""
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    _kept[_hash(text)] = _KeptKey(found, generation, time.monotonic())


def kept_key(text: str) -> tuple[FoundKey, bytes] | None:
    """Return a key that was read lately, and in which generation; it opens nothing in another one."""
    kept = _kept.get(_hash(text))
    if kept is None or time.monotonic() - kept.read_at > KEPT_S:
        return None
    return kept.found, kept.generation


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
