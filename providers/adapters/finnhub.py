"""Finnhub: the last trade of one symbol a request.

The answer does not name the symbol, and is 200 with zeros where there is none.
Source: Finnhub's documentation; recorded answers in provider_responses/finnhub/.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from urllib.parse import urlencode

from django.conf import settings

from providers.adapters.own_key import key_of
from providers.adapters.parsing import (
    ReadQuote,
    check_ranges,
    is_html,
    rate_limited,
    read_answer,
    read_object,
    speaks_for_itself,
    status_error,
    to_number,
    to_time,
    until_epoch_s,
)
from providers.base import (
    ErrorKind,
    Provider,
    ProviderError,
    Quote,
    RawAnswer,
    Request,
    Results,
    malformed,
    to_price,
    unknown_symbol,
)
from providers.http import client as http
from providers.keys import KEY_SETTINGS

_INVALID_KEY = partial(
    ProviderError,
    kind=ErrorKind.INVALID_KEY,
    message=f"the provider refuses the key of {KEY_SETTINGS['finnhub']}",
)
_NOT_ENTITLED = partial(
    ProviderError, kind=ErrorKind.NOT_ENTITLED, message="the plan does not include this symbol"
)
_UNKNOWN_ERROR = partial(malformed, "the answer is an error that is not known")
_BY_STATUS = {200: _UNKNOWN_ERROR, 401: _INVALID_KEY, 403: _NOT_ENTITLED}

_CLASS_SHARE = re.compile(r"([A-Z]+)-([AB])")


class Finnhub(Provider):
    """Adapter of Finnhub. Symbols are spelled as the provider does (BINANCE:BTCUSDT); BRK-B is BRK.B."""

    name = "finnhub"

    def plan(self, symbols: Sequence[str], *, singly: bool = False) -> list[Request]:
        """Return one request for each symbol."""
        return [Request(call="quote", symbols=(symbol,)) for symbol in symbols]

    def fetch(self, request: Request) -> RawAnswer:
        """Send one request; the key travels in a header."""
        query = urlencode({"symbol": _spelling(request.symbols[0])})
        return http.get(
            self.name,
            request.symbols,
            url=f"{settings.FINNHUB_BASE_URL.rstrip('/')}/api/v1/quote?{query}",
            secret_headers={"X-Finnhub-Token": key_of(self.name)},
        )

    def parse(self, answer: RawAnswer) -> Results:
        """Read a quote: price `c`, epoch seconds of the last trade `t` (may be old), no currency."""
        return read_answer(answer, _open_answer)


def _spelling(symbol: str) -> str:
    share = _CLASS_SHARE.fullmatch(symbol)
    return f"{share[1]}.{share[2]}" if share else symbol


def _open_answer(answer: RawAnswer) -> ReadQuote:
    if answer.status != 200:
        raise _refusal(answer)
    body = _body_of(answer)
    if body.get("error"):
        raise _refusal(answer)
    if len(answer.symbols) != 1:
        raise malformed("one quote cannot answer for several symbols")
    return lambda symbol: _to_quote(symbol, body, answer)


def _body_of(answer: RawAnswer) -> dict[str, object]:
    try:
        return read_object(answer.body)
    except ProviderError as error:
        # Refusals have come as plain text too, with 200.
        failure = _reported_error(answer) or error
    raise failure


def _to_quote(symbol: str, body: dict[str, object], answer: RawAnswer) -> Quote:
    last, epoch = to_number(body.get("c")), body.get("t")
    if last == 0 and isinstance(epoch, Decimal) and epoch == 0:
        raise unknown_symbol()
    price, observed_at = to_price(last), to_time(epoch, answer.received_at)
    check_ranges(price, (body.get("l"), body.get("h")), confirmed_by=[body.get("pc")])
    return Quote(
        symbol=symbol,
        price=price,
        observed_at=observed_at,
        precision="second" if observed_at else "unknown",
        currency=None,
    )


def _refusal(answer: RawAnswer) -> ProviderError:
    if is_html(answer.body) or not speaks_for_itself(answer):
        return status_error(answer)
    return _reported_error(answer) or _BY_STATUS.get(answer.status, partial(status_error, answer))()


def _reported_error(answer: RawAnswer) -> ProviderError | None:
    """Return the error that the text or the status 429 means; None where it is none that is known."""
    if is_html(answer.body):
        return None
    text = answer.body[:1000].decode("utf-8", "replace").lower()
    # "Please sign up" comes with 429, and no waiting cures it: there was no key in the request.
    if "sign up" in text or "invalid api key" in text:
        return _INVALID_KEY()
    if "access to this resource" in text or "subscription required" in text:
        return _NOT_ENTITLED()
    if answer.status == 429 or "limit reached" in text:
        reset = answer.headers.get("x-ratelimit-reset", "").strip()
        return rate_limited(answer, retry_after=until_epoch_s(reset, answer))
    if "symbol not supported" in text:
        return unknown_symbol()
    return None
