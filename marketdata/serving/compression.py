"""Answers packed with gzip, for clients that accept it.

Data alone, from LEAST_BYTES on: JSON, CSV and the like. None of it is secret, so its length gives nothing
away (BREACH). Pages are left as they are, and all of the admin: their forms have tokens. So are small
answers: to pack them costs more than it saves.
"""

import re
import zlib
from dataclasses import replace
from functools import lru_cache

from marketdata.serving.answers import Answer, Headers, Stream

LEAST_BYTES = 1024
_ADMIN = "/admin"
_DATA = re.compile(rb"(application/([\w.-]+\+)?json|application/x-ndjson|text/csv)\s*(;|$)")
_QUALITY = re.compile(r"\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*")
# The first level: a higher one takes half as long again, and saves a tenth of what is left. Rows resemble
# their neighbours most: a window of 4 KiB finds as much as the usual 32, in 48 KB for a client and not 256.
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 1, 12, 6
_AS_GZIP = 16


def packed(answer: Answer, *, path: str, accepted: str) -> Answer:
    """Return the answer as it is to be sent for this path to who sent this Accept-Encoding."""
    if answer.more is None and len(answer.body) < LEAST_BYTES:
        return answer
    if path.startswith(_ADMIN) or not _is_whole_data(answer.headers):
        return answer
    # A cache has to know of it where it is not packed, too.
    answer = replace(answer, headers=_varied(answer.headers))
    return _pack(answer) if accepts_gzip(accepted) else answer


@lru_cache(maxsize=256)
def accepts_gzip(accepted: str) -> bool:
    """Return whether an Accept-Encoding has gzip, and not rather the answer as it is."""
    qualities: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, _, parameters = item.partition(";")
        qualities[name.strip()] = _quality(parameters)
    of_gzip = qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0)))
    return of_gzip > 0 and of_gzip >= qualities.get("identity", 0.0)


def _quality(parameters: str) -> float:
    if not parameters:
        return 1.0
    found = _QUALITY.fullmatch(parameters)
    # Of what cannot be read nothing is taken: every client takes the answer as it is.
    return float(found[1]) if found else 0.0


def _is_whole_data(headers: Headers) -> bool:
    is_part = any(name in {b"content-encoding", b"content-range"} for name, _ in headers)
    return not is_part and _DATA.match(_value(headers, b"content-type")) is not None


def _pack(answer: Answer) -> Answer:
    headers = [*answer.headers, (b"content-encoding", b"gzip")]
    etag = _value(headers, b"etag")
    if etag.startswith(b'"'):
        # RFC 9110, 8.8.3: a strong one is of the bytes that are sent.
        headers = _with(headers, b"etag", b"W/" + etag)
    if answer.more is not None:
        return replace(answer, headers=headers, more=_PackedStream(answer.more))
    packer = _new_packer()
    body = packer.compress(answer.body) + packer.flush()
    return replace(answer, headers=_with(headers, b"content-length", b"%d" % len(body)), body=body)


class _PackedStream:
    """The pieces of a stream, each packed and sent at once: nobody waits for the first rows."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._packer = _new_packer()
        self._is_over = False

    def next_piece(self) -> bytes | None:
        piece = self._stream.next_piece()
        if piece is not None:
            return self._packer.compress(piece) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        if self._is_over:
            return None
        self._is_over = True
        return self._packer.flush()

    def close(self) -> None:
        self._stream.close()


def _new_packer() -> "zlib._Compress":
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, _AS_GZIP + _WINDOW_BITS, _MEMORY_LEVEL)


def _varied(headers: Headers) -> Headers:
    names = [name.strip() for name in _value(headers, b"vary").split(b",") if name.strip()]
    if any(name.lower() in {b"accept-encoding", b"*"} for name in names):
        return headers
    return _with(headers, b"vary", b", ".join([*names, b"Accept-Encoding"]))


def _value(headers: Headers, name: bytes) -> bytes:
    return next((value for each, value in headers if each == name), b"")


def _with(headers: Headers, name: bytes, value: bytes) -> Headers:
    return [*(header for header in headers if header[0] != name), (name, value)]
