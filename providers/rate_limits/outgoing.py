"""Requests on their way out: what an adapter asks before each one that it sends for a permit.

The first uses the permit. Yahoo's adapter sends others besides (for a cookie, for a crumb, a second attempt):
each of these waits for room in the budget, is counted for itself, and is over when its answer is there. And
each is looked at once more just before it goes out: whoever asked may not want it any more.

NotSentError            nothing went out; there is nothing to store, and it is no word on the provider
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from providers.rate_limits.permits import (
    Granted,
    Refused,
    count_another,
    give_back,
    give_probe_back,
    report_end,
    wait_for_several,
)

# Whoever looked so lately whether a request is wanted need not look again.
LOOKED_JUST_NOW_S = 0.25


class NotSentError(Exception):
    """The request did not go out.

    `refused` says why the budget has no room; it is None where nobody wants the request any more.
    """

    def __init__(self, refused: Refused | None = None) -> None:
        super().__init__(refused.reason if refused else "nobody wants it any more")
        self.refused = refused


def _always() -> bool:
    return True


@dataclass(slots=True)
class Outgoing:
    """The requests of one permit; `is_wanted` tells whether they may go out, and was asked at `looked_at`."""

    permit: Granted
    is_wanted: Callable[[], bool] = _always
    # The id under which the last request was counted.
    entry: str = ""
    # The next request goes out on the permit itself, for which it was counted.
    is_permit_left: bool = True
    # Nobody wants what has not gone out yet.
    is_unwanted: bool = False
    looked_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.entry = self.permit.request_id

    def has_time_for(self, more: int, *, deadline: float) -> bool:
        """Return whether `more` requests besides the next one fit into the budget before `deadline`.

        `deadline` is by the monotonic clock, here and below.
        """
        return time.monotonic() + wait_for_several(self.permit, more) < deadline

    @contextmanager
    def request(self, *, deadline: float) -> Iterator[None]:
        """Take room in the budget for one request, and report its end. Raises NotSentError."""
        self._take_room(deadline)
        try:
            self.check()
            yield
        except NotSentError:
            give_back(self.permit, self.entry)
            raise
        except BaseException:
            report_end(self.permit, self.entry)
            raise
        report_end(self.permit, self.entry)

    def check(self) -> None:
        """Raise NotSentError if nobody wants the request any more. To be called just before it goes out."""
        if time.monotonic() - self.looked_at >= LOOKED_JUST_NOW_S:
            self.is_unwanted = self.is_unwanted or not self.is_wanted()
            self.looked_at = time.monotonic()
        if self.is_unwanted:
            raise NotSentError

    def give_back_permit(self) -> None:
        """Let others use the room in the budget while the next request has to wait for something else."""
        if self.is_permit_left:
            self.is_permit_left = False
            give_back(self.permit, self.entry)

    def cancel(self) -> None:
        """Report that nothing more goes out, and that what did is no word on the provider."""
        self.give_back_permit()
        give_probe_back(self.permit)

    def _take_room(self, deadline: float) -> None:
        if self.is_permit_left:
            self.is_permit_left = False
            return
        entry = uuid.uuid4().hex
        while refused := count_another(self.permit, entry):
            wait_s = refused.retry_after_s
            if wait_s is None or time.monotonic() + wait_s >= deadline:
                raise NotSentError(refused)
            time.sleep(wait_s)
        self.entry = entry


_current: ContextVar[Outgoing | None] = ContextVar("outgoing", default=None)


@contextmanager
def sending(outgoing: Outgoing) -> Iterator[Outgoing]:
    """Let the adapters that this thread calls send the requests of this permit."""
    token = _current.set(outgoing)
    try:
        yield outgoing
    finally:
        _current.reset(token)


def current_outgoing(provider: str) -> Outgoing:
    """Return what this thread sends; where it has no permit, it is counted all the same, as a job's."""
    return _current.get() or Outgoing(Granted(provider, "job", uuid.uuid4().hex))
