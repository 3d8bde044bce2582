"""What an error of PostgreSQL means, by its SQLSTATE (PostgreSQL's documentation, appendix A)."""

from enum import StrEnum

from django.db import Error, InterfaceError, OperationalError

_OTHER_SESSIONS = ("40", "55P03", "57014", "25P03", "25P04")
_CONNECTION = ("08", "57P", "53300")
_DISK_FULL = "53100"
_READ_ONLY = "25006"


class DatabaseTrouble(StrEnum):
    """Why PostgreSQL did not do what it was asked, where that is no bug."""

    UNREACHABLE = "cannot be reached"
    BUSY = "is busy with other work"
    DISK_FULL = "has no room left on its disk"
    READ_ONLY = "takes no writes"


def database_trouble(error: BaseException) -> DatabaseTrouble | None:
    """Return what an error of Django's database layer means; None for a bug, and for any other error."""
    if not isinstance(error, Error):
        return None
    state = str(getattr(error.__cause__, "sqlstate", None) or "")
    # A server that cannot begin a session for want of room says so in words alone.
    if state == _DISK_FULL or (not state and "No space left on device" in str(error)):
        return DatabaseTrouble.DISK_FULL
    if state == _READ_ONLY:
        return DatabaseTrouble.READ_ONLY
    if state.startswith(_OTHER_SESSIONS):
        return DatabaseTrouble.BUSY
    # Without a state there was no answer of a server.
    if state.startswith(_CONNECTION) or (not state and isinstance(error, OperationalError | InterfaceError)):
        return DatabaseTrouble.UNREACHABLE
    return None
