"""What goes over the wire, whichever provider it is said for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from providers.simulator.faults import ErrorMode
from providers.simulator.rate import Standing

HTML = "text/html"
JSON = "application/json"


class Ending(StrEnum):
    """How an exchange ends."""

    ANSWERED = "answered"
    # The answer breaks off in its middle, by a reset of the connection.
    RESET = "reset"
    # Nothing is sent, until the client gives up.
    HANG = "hang"
    # Nothing is sent, and the connection is closed.
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to send, and the word for it in the log of requests."""

    outcome: str
    body: bytes = b""
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Ending = Ending.ANSWERED

    @property
    def is_sent(self) -> bool:
        """Return whether the answer arrives as a whole."""
        return self.ending == Ending.ANSWERED


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks for; `call` is the provider's name of it."""

    call: str
    symbol: str
    key: str
    is_csv: bool = False


class Dialect(Protocol):
    """How one provider is asked, and what it answers."""

    name: str

    def takes(self, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request to this path is for the provider; names of headers are in lower case."""

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Ask:
        """Read a request that it takes; what is missing in it is empty."""

    def blank_key(self) -> Answer:
        """Refuse a request that has no key."""

    def invalid_key(self) -> Answer:
        """Refuse a key."""

    def not_entitled(self) -> Answer:
        """Refuse what the plan does not include."""

    def rate_limited(self, ask: Ask, standing: Standing) -> Answer:
        """Refuse a request beyond a limit."""

    def in_place_of_quote(self, ask: Ask) -> Answer | None:
        """Answer or refuse what is no request for a quote; None where it is one."""

    def knows(self, ask: Ask) -> bool:
        """Return whether there is what is asked for."""

    def unknown_symbol(self, ask: Ask) -> Answer:
        """Tell that there is no such symbol."""

    def quote(self, ask: Ask, second: int) -> Answer:
        """Return the quote of an epoch second."""

    def standing_headers(self, standing: Standing) -> dict[str, str]:
        """Return the headers that tell what is left of a limit."""


OUTAGE = Answer("outage", ending=Ending.CLOSED)

_PAGE = b"<!DOCTYPE html>\n<html><head><title>%b</title></head><body><h1>%b</h1></body></html>\n"


def json_body(document: object) -> bytes:
    """Write JSON as providers do: text of any alphabet as it is."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def gone_wrong(mode: ErrorMode, good: Answer) -> Answer:
    """Return what a client gets in place of a good answer; `mode` is not ANY."""
    match mode:
        case ErrorMode.BAD_GATEWAY:
            return Answer(mode, _page(b"502 Bad Gateway"), 502, HTML)
        case ErrorMode.UNAVAILABLE:
            return Answer(mode, b"", 503, "text/plain")
        case ErrorMode.HTML:
            return Answer(mode, _page(b"Just a moment"), 200, HTML)
        case ErrorMode.MALFORMED:
            # No reader takes it for JSON, and it has no row of CSV.
            return Answer(mode, b'{"quote": ,}')
        case ErrorMode.TRUNCATED:
            return replace(good, outcome=mode, body=good.body[: len(good.body) // 2])
        case ErrorMode.RESET:
            return replace(good, outcome=mode, ending=Ending.RESET)
        case _:
            return Answer(mode, ending=Ending.HANG)


def _page(title: bytes) -> bytes:
    return _PAGE % (title, title)
