"""A local server that plays the three providers, repeats their keys in every way, and fails in every way."""

import gzip
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, unquote, urlsplit

from tests.canary_search import SPELLINGS, Spell
from tests.providers.yahoo_bodies import chart_body, quote_body

PRICE = "150.250"
LIMIT_TEXT = "We have detected your API key as {} and our standard API rate limit is 25 requests per day."
KIB_64 = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """A request: who was asked for which symbols, and the secrets that came with it."""

    provider: str
    symbols: list[str]
    is_batch: bool
    secrets: list[str]

    def secrets_as(self, spell: Spell) -> str:
        """Return all secrets, each spelled in this way."""
        return " ".join(map(spell, self.secrets))

    @property
    def plain(self) -> str:
        return self.secrets_as(str)


@dataclass(frozen=True)
class Reply:
    """What goes over the wire, and how the connection ends: `close`, `reset`, or `hang`."""

    data: bytes
    ending: str = "close"


Case = Callable[[Asked], Reply]


def reply(
    body: str | bytes, status: str = "200 OK", *headers: str, length: int | None = None, ending: str = "close"
) -> Reply:
    """Return an answer; `length` is what its header says where that is not the truth."""
    content = body.encode() if isinstance(body, str) else body
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(content) if length is None else length}",
        "Connection: close",
        *headers,
    ]
    return Reply("\r\n".join(lines).encode() + b"\r\n\r\n" + content, ending)


def good_body(asked: Asked, echo: str) -> str:
    """Return the provider's own form of a quote, with a text in it; the price is 150.250."""
    now = int(time.time()) - 5
    symbol = asked.symbols[0]
    if asked.provider == "alpha_vantage":
        day = time.strftime("%Y-%m-%d", time.gmtime(now - 86_400))
        quote = {"01. symbol": symbol, "05. price": PRICE, "07. latest trading day": day}
        return json.dumps({"Global Quote": quote, "echo": "@"}).replace("@", echo)
    if asked.provider == "finnhub":
        return f'{{"c": {PRICE}, "t": {now}, "echo": "{echo}"}}'
    rows = [
        {
            "symbol": each,
            "currency": "USD",
            "regularMarketPrice": 150.25,
            "regularMarketTime": now,
            "echo": "@",
        }
        for each in asked.symbols
    ]
    body = quote_body(*rows) if asked.is_batch else chart_body(rows[0])
    return json.dumps(body).replace("150.25", PRICE).replace("@", echo)


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _every_spelling(asked: Asked) -> str:
    return "\n".join(map(asked.secrets_as, SPELLINGS.values()))


# What can stand in a JSON text without ending it.
_IN_JSON = [SPELLINGS[name] for name in SPELLINGS if name not in {"plain", "html"}]


def _refusing(status: int) -> Case:
    return lambda asked: reply(json.dumps({"error": asked.plain}), f"{status} Refused")


_HTML = "<!DOCTYPE html><title>Bad gateway</title>"

CASES: Mapping[str, Case] = {
    "TEXT": lambda asked: reply(_every_spelling(asked)),
    "QUOTE": lambda asked: reply(good_body(asked, " ".join(map(asked.secrets_as, _IN_JSON)))),
    **{f"STATUS.{status}": _refusing(status) for status in (400, 401, 403, 404, 429, 500, 503)},
    "DAILY.LIMIT": lambda asked: reply(json.dumps({"Information": LIMIT_TEXT.format(asked.plain)})),
    "NOTE": lambda asked: reply(json.dumps({"Note": asked.plain, "Error Message": asked.plain})),
    "NAME": lambda asked: reply(json.dumps({asked.plain: {asked.plain: 1}})),
    "FIELDS": lambda asked: reply(
        good_body(asked, "").replace(asked.symbols[0], _json(asked.plain)).replace("USD", _json(asked.plain))
    ),
    "HTML.200": lambda asked: reply(_HTML + _every_spelling(asked)),
    "HTML.502": lambda asked: reply(_HTML + _every_spelling(asked), "502 Bad Gateway"),
    "HEADERS": lambda asked: reply(
        "{}",
        "403 Forbidden",
        f"X-Echo: {asked.plain}",
        f"WWW-Authenticate: Key {asked.secrets_as(SPELLINGS['quote lower'])}",
        f"Set-Cookie: echo={asked.secrets_as(SPELLINGS['quote all'])}",
        f"X-{asked.secrets_as(SPELLINGS['quote each'])}: name",
    ),
    "REDIRECT": lambda asked: reply(
        asked.plain,
        "302 Found",
        f"Location: https://elsewhere.example/?key={asked.secrets_as(SPELLINGS['quote all'])}",
    ),
    "REASON": lambda asked: reply("{}", f"403 {asked.plain}"),
    "GZIP": lambda asked: reply(
        gzip.compress(good_body(asked, _json(asked.plain)).encode()), "200 OK", "Content-Encoding: gzip"
    ),
    "GZIP.UNSAID": lambda asked: reply(gzip.compress(asked.plain.encode())),
    "GZIP.TWICE": lambda asked: reply(
        gzip.compress(gzip.compress(asked.plain.encode())), "200 OK", "Content-Encoding: gzip"
    ),
    "GZIP.BAD": lambda asked: reply(asked.plain, "200 OK", "Content-Encoding: gzip"),
    "GZIP.CUT": lambda asked: reply(
        gzip.compress(asked.plain.encode() * 50)[:-12], "200 OK", "Content-Encoding: gzip"
    ),
    "CODING": lambda asked: reply(
        gzip.compress(asked.plain.encode())[2:], "200 OK", "Content-Encoding: x-unknown"
    ),
    "UTF16": lambda asked: reply(json.dumps({"echo": asked.plain}).encode("utf-16")),
    "TRUNCATED": lambda asked: reply(f'{{"c": 150.25, "echo": "{asked.plain}'),
    "CUT.64K": lambda asked: reply("x" * (KIB_64 - 10) + asked.plain),
    "OVERSIZED": lambda asked: reply("x" * (16 * KIB_64 - 10) + asked.plain + "x" * KIB_64),
    "SHORT": lambda asked: reply(asked.plain, length=100_000),
    "RESET": lambda asked: reply(asked.plain, length=100_000, ending="reset"),
    "RESET.AT.ONCE": lambda asked: Reply(b"", "reset"),
    "SILENT": lambda asked: Reply(b"", "hang"),
    "STALLED": lambda asked: reply(asked.plain, length=100_000, ending="hang"),
    "HEADER.BAD": lambda asked: reply("{}", "200 OK", f"{asked.plain} and no colon", f" : {asked.plain}"),
    "HEADER.LONG": lambda asked: reply("{}", "200 OK", f"X-Echo: {asked.plain * 4000}"),
    "LENGTH.BAD": lambda asked: Reply(
        f"HTTP/1.1 200 OK\r\nContent-Length: {asked.plain}\r\n\r\n{{}}".encode()
    ),
    "CHUNK.BAD": lambda asked: Reply(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{asked.plain}\r\n".encode()
    ),
    "STATUS.LINE.BAD": lambda asked: Reply(f"HTTP/9.x {asked.plain}\r\n\r\n".encode()),
    "NO.HTTP": lambda asked: Reply(asked.plain.encode() + b"\r\n\r\n"),
}


@dataclass
class HostileProviders:
    """The server: its url, and how often it was asked for each symbol with all of its secrets."""

    crumb: str
    cookie: str
    url: str = ""
    echoed: Counter[str] = field(default_factory=Counter)
    repeated: set[str] = field(default_factory=set)

    def answer(self, head: bytes) -> Reply:
        """Return the answer to a request; its first symbol names the case: `JOB-GZIP`."""
        request, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        parts = urlsplit(request.split(" ")[1])
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        asked = self._asked(parts.path, query, headers)
        if asked is None:
            return self._cookie_or_crumb(parts.path)
        if asked.secrets:
            self.echoed[f"{asked.provider} {asked.symbols[0]}"] += 1
            self.repeated.update(asked.secrets)
        return CASES[asked.symbols[0].partition("-")[2].removesuffix(".2")](asked)

    def _asked(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Asked | None:
        if path == "/query":
            return Asked("alpha_vantage", [query["symbol"]], is_batch=False, secrets=[query["apikey"]])
        if path == "/api/v1/quote":
            return Asked("finnhub", [query["symbol"]], is_batch=False, secrets=[headers["x-finnhub-token"]])
        is_batch = path == "/v7/finance/quote"
        if not is_batch and not path.startswith("/v8/finance/chart/"):
            return None
        symbols = query["symbols"].split(",") if is_batch else [unquote(path.rpartition("/")[2])]
        cookies = SimpleCookie(headers.get("cookie", ""))
        sent = [query.get("crumb", ""), cookies["A3"].value if "A3" in cookies else ""]
        return Asked("yfinance", symbols, is_batch=is_batch, secrets=[secret for secret in sent if secret])

    def _cookie_or_crumb(self, path: str) -> Reply:
        if path == "/v1/test/getcrumb":
            return reply(self.crumb)
        return reply("<html></html>", "404 Not Found", f"Set-Cookie: A3={self.cookie}; path=/")


@contextmanager
def hostile_providers(*, crumb: str, cookie: str) -> Iterator[HostileProviders]:
    """Run the server until the block ends. Yahoo's part hands out this crumb and this cookie."""
    providers = HostileProviders(crumb, cookie)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        providers.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=_accept, args=(listener, providers))
        thread.start()
        try:
            yield providers
        finally:
            # Wakes accept(): closing alone does not, on Linux.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def _accept(listener: socket.socket, providers: HostileProviders) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(connection, providers), daemon=True).start()


def _serve(connection: socket.socket, providers: HostileProviders) -> None:
    connection.settimeout(5)
    with connection:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            _send(connection, providers.answer(head.partition(b"\r\n\r\n")[0]))
        except OSError:
            return


def _send(connection: socket.socket, answer: Reply) -> None:
    connection.sendall(answer.data)
    if answer.ending == "hang":
        # Until the client has had enough.
        connection.recv(1)
    elif answer.ending == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
