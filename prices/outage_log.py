"""Outages in the log: a line when one begins, a line when it ends, none for each retry."""

import time

import structlog

log = structlog.get_logger(__name__)


class Outage:
    """Whether something that a process needs is refused to it just now."""

    def __init__(self, *, began: str, ended: str) -> None:
        self._began = began
        self._ended = ended
        self._since: float | None = None

    @property
    def is_under_way(self) -> bool:
        """Return whether the last word was a failure."""
        return self._since is not None

    def begin(self, reason: str) -> None:
        """Note a failure; the first of an outage is logged."""
        if self._since is None:
            self._since = time.monotonic()
            log.warning(self._began, reason=reason)

    def end(self) -> None:
        """Note a success; the first after an outage is logged."""
        if self._since is not None:
            # At the level of the beginning: who is shown the one is shown the other.
            log.warning(self._ended, after_s=round(time.monotonic() - self._since, 1))
            self._since = None
