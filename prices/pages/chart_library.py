"""TradingView's Lightweight Charts, from the package that ships its official build.

The package is not imported: it would bring pandas. What it ships is served where it is what it was when this
was written.
"""

import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.checks import CheckMessage, Error
from django.core.files.storage import FileSystemStorage

_FOLDER, _FILE = "pages", "lightweight-charts.standalone.production.js"
NAME = f"{_FOLDER}/{_FILE}"
_PACKAGE, _LOCATION = "akquant-lwc", f"akquant_lwc/assets/{_FILE}"
SHA256 = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7"


def library_file() -> Path | None:
    """Return the library's file; None where it is not installed."""
    try:
        path = Path(str(distribution(_PACKAGE).locate_file(_LOCATION)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def is_as_known(path: Path) -> bool:
    """Return whether the file is the one that this service was made with."""
    return hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


class ChartLibraryFinder(BaseFinder):
    """Finds the library under its name among the service's static files."""

    def find(self, path: str, find_all: bool = False, **_kwargs: Any) -> Any:
        """Return the library's path, where that is asked for."""
        found = library_file() if path == NAME else None
        if found is None or not is_as_known(found):
            return []
        return [str(found)] if find_all else str(found)

    def check(self, **_kwargs: Any) -> list[CheckMessage]:
        """Return an error where the library is missing, or another one."""
        found = library_file()
        if found is None:
            return [_fault(f"{_PACKAGE} is not installed")]
        return [] if is_as_known(found) else [_fault(f"{found.name} is another file than it was")]

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterable[tuple[str, FileSystemStorage]]:
        """Yield the library and where it lies."""
        found = library_file()
        if found is not None and is_as_known(found):
            storage = FileSystemStorage(location=found.parent)
            storage.prefix = _FOLDER  # type: ignore[attr-defined]  # as Django's own finders set it
            yield found.name, storage


def _fault(reason: str) -> Error:
    return Error(
        f"The charts' library cannot be served: {reason}.",
        hint="pip install -r requirements.txt",
        id="marketdata.E101",
    )
