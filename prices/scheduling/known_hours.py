"""Which slots beat sends of jobs that are polled in market hours, without a wait for calendars.

Calendars take tenths of a second to make, the first of a process a second more, and beat's lease lasts two.
So a thread makes them. Until it has, each slot is sent: the worker that takes it sees whether it is polled.
"""

import threading
from queue import SimpleQueue

from prices.ledger.market_hours import WEEK_MS, Calendars, PollingHours, hours_at
from prices.scheduling.due_heap import GroupKey

Week = tuple[Calendars, int]


class KnownHours:
    """The hours that are known, of jobs by their keys. Times are ms since the epoch."""

    def __init__(self) -> None:
        self._known: dict[Week, PollingHours | None] = {}
        self._asked: set[Week] = set()
        self._to_make: SimpleQueue[Week] = SimpleQueue()

    def have_slot(self, key: GroupKey, due: int) -> bool:
        """Return whether a slot is sent."""
        hours = self._hours_of(key, due)
        return hours is None or hours.have_slot(due, key.interval)

    def next_slot(self, key: GroupKey, due: int) -> int:
        """Return the first slot after `due` that is sent, or an earlier one that is to be looked at then."""
        hours = self._hours_of(key, due)
        return due + key.interval if hours is None else hours.next_slot(due, key.interval)

    def _hours_of(self, key: GroupKey, moment: int) -> PollingHours | None:
        if key.calendars is None:
            return None
        week = (key.calendars, moment // WEEK_MS)
        if week not in self._known and week not in self._asked:
            self._ask(week)
        return self._known.get(week)

    def _ask(self, week: Week) -> None:
        if not self._asked:
            threading.Thread(target=self._make, name="market-hours", daemon=True).start()
        self._asked.add(week)
        self._to_make.put(week)

    def _make(self) -> None:
        while True:
            calendars, number = week = self._to_make.get()
            self._known[week] = hours_at(calendars, number * WEEK_MS)
            for known_calendars, known_number in list(self._known):
                if known_calendars == calendars and known_number < number - 1:
                    del self._known[known_calendars, known_number]
