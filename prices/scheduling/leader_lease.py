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
from django.utils import timezone

from prices.clock import Reading, read_clock
from prices.database.uuid7 import epoch_ms
from prices.outage_log import Outage

log = structlog.get_logger(__name__)

LEASE_S = 2.0
RENEW_EACH_S = 0.5
# So far the clock has to be set back for that to be noted.
SET_BACK_BEYOND_S = 5.0
# The holder trusts it for a little less, by its own clock: what it sends has to be on its way before the end.
TRUST_S = LEASE_S - 0.2

# Of one that is stopped while it holds the lock PostgreSQL ends the transaction: the others wait for it.
_LET_GO = "SET LOCAL idle_in_transaction_session_timeout = '1s';"
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('beat lease'))"
# A lease that ends later than one of now would is of a time before the clock was set back: nobody holds it.
_HOLDS = "until > clock_timestamp() AND until <= clock_timestamp() + make_interval(secs => %s)"
_RENEW = f"""
    UPDATE beat_terms
    SET renewed_at = clock_timestamp(), until = clock_timestamp() + make_interval(secs => %s)
    WHERE id = %s AND {_HOLDS}
    RETURNING renewed_at
"""  # noqa: S608 - no outside text
# The last row is of a time to come: this clock was set back since. Whoever led by the one that was ahead led
# until now, for as long as the terms took that began in the time to come.
_NOTE_SET_BACK = """
    WITH last AS (
        SELECT * FROM beat_terms ORDER BY id DESC LIMIT 1
    ), ahead AS (
        SELECT coalesce(sum(renewed_at - began_at), interval '0') AS led_for
        FROM beat_terms
        WHERE renewed_at > statement_timestamp() AND began_at > statement_timestamp()
          AND id > coalesce((SELECT max(id) FROM beat_terms WHERE clock_ahead_s IS NOT NULL), 0)
    )
    INSERT INTO beat_terms (holder, began_at, renewed_at, until, clock_ahead_s)
    SELECT last.holder, statement_timestamp() - ahead.led_for, statement_timestamp(), statement_timestamp(),
           extract(epoch FROM last.renewed_at - statement_timestamp())
    FROM last, ahead
    WHERE last.renewed_at > statement_timestamp() + make_interval(secs => %s)
    RETURNING clock_ahead_s
"""
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
        self._clock: Reading | None = None
        self._database = Outage(began="beat.database_away", ended="beat.database_back")

    @property
    def term(self) -> Term | None:
        """The term in which this beat leads, as long as nobody else can have begun one."""
        return self._term if time.monotonic() < self._trusted_until else None

    @property
    def seconds_left(self) -> float:
        """How long until it has to be asked for again."""
        return max(self._asked_at + RENEW_EACH_S - time.monotonic(), 0.0)

    def now_ms(self) -> int:
        """Return the time by the database's clock in ms since the epoch, as it was known half a second ago.

        By it beat sends what is due: a worker that asks for the time afterwards finds the slot begun.
        """
        now = self._clock.now if self._clock else timezone.now()
        return epoch_ms(now)

    def keep(self) -> None:
        """Renew the lease, or begin a term where nobody leads; at most each 0.5 s."""
        if self.seconds_left > 0:
            return
        # The clock that goes on while this process is stopped, read before the database is asked.
        self._asked_at = asked_at = time.monotonic()
        try:
            self._ask()
            self._clock = read_clock()
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
        log.info("beat.released_lease", holder=self.holder)

    def _ask(self) -> None:
        # A transaction around it has its own pace.
        let_go = "" if connection.in_atomic_block else _LET_GO
        with transaction.atomic(), connection.cursor() as cursor:
            # One at a time: who begins a term must see who has just renewed one.
            cursor.execute(f"{let_go} {_LOCK}")
            if self._term is not None:
                cursor.execute(_RENEW, [LEASE_S, self._term.id, LEASE_S])
                if cursor.fetchone() is not None:
                    return
                self._term = None
                log.warning("beat.lost_its_lead", holder=self.holder)
            cursor.execute(_NOTE_SET_BACK, [SET_BACK_BEYOND_S])
            set_back = cursor.fetchone()
            cursor.execute(_BEGIN, [self.holder, LEASE_S, LEASE_S])
            begun = cursor.fetchone()
        if set_back is not None:
            log.warning("beat.database_clock_set_back", seconds=round(set_back[0], 1))
        if begun is not None:
            term_id, led_before, began_at = begun
            self._term = Term(term_id, began_at, led_before)
            log.info("beat.leads", holder=self.holder)
