"""Who leads among several beats: the last row of beat_terms, by the database's clock.

A row that has to be renewed, and no session lock: that would be kept by a process that was stopped or
whose host died, and lost where Celery closes an old connection.
"""

import os
import socket
import time
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction

from prices.outage import Outage

log = structlog.get_logger(__name__)

LEASE_S = 2.0
RENEW_EACH_S = 0.5
# The holder trusts it for a little less, by its own clock: what it sends has to be on its way before the end.
TRUST_S = LEASE_S - 0.2

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('beat lease'))"
# A lease that ends later than one of now would is of a time before the clock was set back: nobody holds it.
_HOLDS = "until > clock_timestamp() AND until <= clock_timestamp() + make_interval(secs => %s)"
_RENEW = f"""
    UPDATE beat_terms
    SET renewed_at = clock_timestamp(), until = clock_timestamp() + make_interval(secs => %s)
    WHERE id = %s AND {_HOLDS}
    RETURNING renewed_at
"""  # noqa: S608 - no outside text
_BEGIN = f"""
    INSERT INTO beat_terms (holder, began_at, renewed_at, until)
    SELECT %s, clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => %s)
    WHERE NOT EXISTS (
        SELECT FROM beat_terms
        WHERE {_HOLDS} AND renewed_at > statement_timestamp() - interval '1 minute'
    )
    RETURNING id, (SELECT renewed_at FROM beat_terms ORDER BY id DESC LIMIT 1), clock_timestamp()
"""  # noqa: S608 - no outside text
_END = "UPDATE beat_terms SET renewed_at = clock_timestamp(), until = clock_timestamp() WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Term:
    """A time of leading: when it began, and when somebody led last before it (None: nobody ever did)."""

    id: int
    began_at: datetime
    led_before: datetime | None


class BeatLease:
    """One beat's claim to lead; `keep` it in every turn. `term` is None while another leads."""

    def __init__(self) -> None:
        self.holder = f"{socket.gethostname()}:{os.getpid()}"
        self._term: Term | None = None
        self._asked_at = float("-inf")
        self._trusted_until = float("-inf")
        self._database = Outage(began="beat.database_away", ended="beat.database_back")

    @property
    def term(self) -> Term | None:
        """The term in which this beat leads, as long as nobody else can have begun one."""
        return self._term if time.monotonic() < self._trusted_until else None

    @property
    def seconds_left(self) -> float:
        """How long until it has to be asked for again."""
        return max(self._asked_at + RENEW_EACH_S - time.monotonic(), 0.0)

    def keep(self) -> None:
        """Renew the lease, or begin a term where nobody leads; at most each 0.5 s."""
        if self.seconds_left > 0:
            return
        # The clock that goes on while this process is stopped, read before the database is asked.
        self._asked_at = asked_at = time.monotonic()
        try:
            self._ask()
        except (DatabaseError, InterfaceError) as error:
            self._database.begin(str(error).partition("\n")[0])
            connection.close()
            return
        self._database.end()
        if self._term is not None:
            self._trusted_until = asked_at + TRUST_S

    def release(self) -> None:
        """Let another one lead at once."""
        term, self._term = self._term, None
        if term is None:
            return
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(_LOCK)
                cursor.execute(_END + " AND until > clock_timestamp()", [term.id])
        except (DatabaseError, InterfaceError):
            # It ends by itself.
            connection.close()
        log.info("beat.stands_down", holder=self.holder)

    def _ask(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            # One at a time: who begins a term must see who has just renewed one.
            cursor.execute(_LOCK)
            if self._term is not None:
                cursor.execute(_RENEW, [LEASE_S, self._term.id, LEASE_S])
                if cursor.fetchone() is not None:
                    return
                self._term = None
                log.warning("beat.lost_its_lead", holder=self.holder)
            cursor.execute(_BEGIN, [self.holder, LEASE_S, LEASE_S])
            begun = cursor.fetchone()
        if begun is not None:
            term_id, led_before, began_at = begun
            self._term = Term(term_id, began_at, led_before)
            log.info("beat.leads", holder=self.holder)
