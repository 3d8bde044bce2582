"""Where a reader of the stream is: what clients get as `id:`, and send back as Last-Event-ID.

A position is that of a row that was stored, by its transaction and its id in it, or of a whole transaction.
Never of one that stored nothing: after a crash of PostgreSQL the number of such a one may be given again, and
what it stores then would be behind the reader.
"""

import re
from typing import NamedTuple
from uuid import UUID

LAST_ID = UUID(int=(1 << 128) - 1)
_FORM = re.compile(r"([0-9a-f]{12})\.([0-9]{1,19})(?:\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))?")


class Position(NamedTuple):
    """A reader has had all of the transactions before `tx`, and of that one the rows up to `event_id`."""

    tx: int
    event_id: UUID = LAST_ID

    @property
    def is_whole(self) -> bool:
        """Whether it has had all of `tx`."""
        return self.event_id == LAST_ID


class Cursor(NamedTuple):
    """A position, and the history of which it is: that of a database, until it is restored."""

    history: str
    position: Position

    def __str__(self) -> str:
        whole = f"{self.history}.{self.position.tx}"
        return whole if self.position.is_whole else f"{whole}.{self.position.event_id}"


def parse_cursor(text: str) -> Cursor | None:
    """Return the cursor that a client sends, None where the text is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    history, tx, event_id = found.groups()
    return Cursor(history, Position(int(tx), UUID(event_id) if event_id else LAST_ID))
