"""Fetch the jars of Apache Kafka that a folder lacks: `python -m dev.embedded.fetch_jars FOLDER`.

A process of its own, so that a start that is called off ends it in the middle of a download.
"""

import fcntl
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import requests
from jgo.config import GlobalSettings
from jgo.maven import MavenContext

from dev.embedded.kafka_jars import Jar, is_locked, missing_jars, read_lock

CONNECTIONS = 8
TRIES = 3


class FetchError(Exception):
    """A jar cannot be had; the text is a sentence that says why."""


def fetch_jars(jars: Sequence[Jar], folder: Path) -> None:
    """Put the jars that the folder lacks into it, each only with the bytes that the lock names.

    Wait where another process is at it. Raise FetchError where one cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft = folder / "draft"
        # What a fetch that was ended in the middle has left.
        shutil.rmtree(draft, ignore_errors=True)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(partial(_fetch, maven=maven(draft), folder=folder), missing_jars(jars, folder)))
        shutil.rmtree(draft, ignore_errors=True)


def maven(folder: Path) -> MavenContext:
    """Return what downloads into the folder, from the repositories of jgo's settings or Maven Central."""
    return MavenContext(repo_cache=folder, remote_repos=GlobalSettings.load().repositories or None)


def _fetch(jar: Jar, *, maven: MavenContext, folder: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            path = _download(jar, maven)
        except FetchError:
            if not left:
                raise
        else:
            path.replace(folder / jar.file_name)
            return


def _download(jar: Jar, maven: MavenContext) -> Path:
    artifact = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    # A download that broke off leaves its beginning.
    if artifact.cached_path:
        artifact.cached_path.unlink(missing_ok=True)
    try:
        path = artifact.resolve()
    except requests.RequestException as error:
        host = urlsplit(str(error.request.url)).hostname if error.request else "Maven Central"
        raise FetchError(f"{host} cannot be reached ({type(error).__name__}).") from error
    except RuntimeError as error:
        raise FetchError(f"{jar.file_name} is not to be had: {error}.") from error
    if not is_locked(jar, path):
        raise FetchError(f"{jar.file_name} came with other bytes than kafka.lock names, and is not used.")
    return path


if __name__ == "__main__":
    try:
        fetch_jars(read_lock(), Path(sys.argv[1]))
    except FetchError as error:
        sys.exit(str(error))
