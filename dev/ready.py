"""Watches the web server until it is ready."""

import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

POLL_S = 0.1
PATIENCE_S = 60
ANSWER_CHARACTERS = 300
_direct = build_opener(ProxyHandler({}))


def announce_when_ready(
    url: str, *, started: float, say: Callable[[str], None], patience_s: float = PATIENCE_S
) -> None:
    """Say once, from a thread of its own, that `url` is ready, or after `patience_s` why it is not.

    `started` is the monotonic time at which the run began.
    """
    threading.Thread(target=_watch, args=(url, started, say, patience_s), daemon=True).start()


def _watch(url: str, started: float, say: Callable[[str], None], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while problem := _problem(f"{url}/readyz"):
        if time.monotonic() > deadline:
            say(f"not ready after {patience_s:g} s: {problem}")
            return
        time.sleep(POLL_S)
    say(f"ready after {time.monotonic() - started:.1f} s: {url}/")


def _problem(url: str) -> str:
    try:
        with _direct.open(url, timeout=5):
            return ""
    except HTTPError as error:
        with error:
            answer = error.read(ANSWER_CHARACTERS).decode(errors="replace")
        return f"/readyz answers {error.code}: {answer}"
    except (OSError, HTTPException) as error:
        return f"{url} does not answer ({error})"
