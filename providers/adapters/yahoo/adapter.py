"""Yahoo Finance, by the session of the library yfinance: a chart for one symbol, a quote for many.

The quote call needs Yahoo's crumb; where that is refused, each symbol's chart is asked instead.
Source: recorded answers in provider_responses/yahoo/; Yahoo itself documents none of this.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from providers.adapters.parsing import (
    ReadQuote,
    Rows,
    check_ranges,
    check_unique,
    rate_limited,
    read_answer,
    read_object,
    speaks_for_itself,
    status_error,
    to_currency,
    to_number,
    to_time,
)
from providers.adapters.yahoo.batches import rest_batches
from providers.base import (
    Provider,
    Quote,
    RawAnswer,
    Request,
    Results,
    malformed,
    to_price,
    unknown_symbol,
    upstream_error,
)
from providers.markets.calendars import CURRENCIES

_QUOTE_PATH = "/v7/finance/quote"
QUOTE_URL = f"https://query1.finance.yahoo.com{_QUOTE_PATH}"
CHART_URL = "https://query2.finance.yahoo.com/v8/finance/chart/"
# At 32 characters each they fill 1.6 KB of url; the answer has about 2.5 KB for each.
SYMBOLS_PER_QUOTE = 50

_CHART_PARAMS = {"range": "1d", "interval": "1d"}
# What a refused crumb looks like: Unauthorized, Forbidden, Too Many Requests.
_REFUSED = frozenset({401, 403, 429})
# The same in words, and what Yahoo says at the address of a call that it has given up: of a list of
# symbols "Not Found" tells nothing.
_REFUSED_IN_WORDS = re.compile(rb'"code"\s*:\s*"(?:Unauthorized|Not Found)"')
_NOT_FOUND = re.compile(rb'"code"\s*:\s*"Not Found"')
_DELISTED_EXCHANGE = "YHD"
_PREVIOUS_CLOSES = ("regularMarketPreviousClose", "chartPreviousClose", "previousClose")
_RANGES = (
    ("regularMarketDayLow", "regularMarketDayHigh"),
    ("fiftyTwoWeekLow", "fiftyTwoWeekHigh"),
)

_CLASS_SHARE = re.compile(r"([A-Z]+)\.([AB])")
_PAIR = re.compile(r"([A-Z]{3})/([A-Z]{3})")
# Against the dollar: EUR=X is USDEUR=X, and Yahoo answers with either, whichever was asked for.
_DOLLAR_PAIR = re.compile(r"([A-Z]{3})=X")
# What is paid for a currency, and for a coin: EURUSD=X, BTC-USD.
_QUOTED = re.compile(r"[A-Z]{3}([A-Z]{3})=X")
_QUOTED_FOR_COIN = re.compile(r"[A-Z0-9]+-([A-Z]{3})")


class Yahoo(Provider):
    """Adapter of Yahoo Finance. Symbols are spelled as Yahoo does; BRK.B is BRK-B, USD/JPY USDJPY=X.

    So is JPY=X: a pair against the dollar has two names.
    """

    name = "yfinance"

    def plan(self, symbols: Sequence[str], *, singly: bool = False) -> list[Request]:
        """Return a chart request for a single symbol, else quote requests of up to 50 symbols."""
        size = 1 if singly else SYMBOLS_PER_QUOTE
        chunks = [tuple(symbols[start : start + size]) for start in range(0, len(symbols), size)]
        return [Request(call="chart" if len(chunk) == 1 else "quote", symbols=chunk) for chunk in chunks]

    def fetch(self, request: Request) -> RawAnswer:
        """Send one request, with what Yahoo wants before it (a cookie, a crumb) inside the deadline."""
        # Here and not above: yfinance takes a second and 100 MB to import, and not all processes ask Yahoo.
        from providers.adapters.yahoo import session as yahoo_session

        url, params = _target(request)
        needs_crumb = url == QUOTE_URL
        answer = yahoo_session.get(
            self.name, request.symbols, url=url, params=params, needs_crumb=needs_crumb
        )
        if self.fallback(answer):
            rest_batches(self.name)
        return answer

    def parse(self, answer: RawAnswer) -> Results:
        """Read a chart or a quote answer: `regularMarketPrice`, and its time in epoch seconds.

        The bars of a chart are not looked at: they may be of other days, and are 32-bit floats.
        Prices are in the listing's own unit (`GBp`: pence), with the currency as Yahoo writes it.
        """
        return read_answer(answer, _open_answer)

    def fallback(self, answer: RawAnswer) -> list[Request]:
        """Return a chart request for each symbol of a quote call that was refused."""
        in_words = speaks_for_itself(answer) and _REFUSED_IN_WORDS.search(answer.body)
        if _QUOTE_PATH not in answer.url or not (in_words or answer.status in _REFUSED):
            return []
        return [Request(call="chart", symbols=(symbol,)) for symbol in answer.symbols]


def quoted_currency(symbol: str) -> str | None:
    """Return the currency that a symbol names for its price (EURUSD=X: USD), None where it names none."""
    name = _spelling(symbol)
    pair, coin = _QUOTED.fullmatch(name), _QUOTED_FOR_COIN.fullmatch(name)
    if coin and coin[1] in CURRENCIES:
        return coin[1]
    return pair[1] if pair else None


def _target(request: Request) -> tuple[str, dict[str, str]]:
    names = list(dict.fromkeys(_spelling(symbol) for symbol in request.symbols))
    if request.call == "chart":
        return CHART_URL + quote(names[0], safe="=:&"), _CHART_PARAMS
    return QUOTE_URL, {"symbols": ",".join(names)}


def _spelling(symbol: str) -> str:
    share = _CLASS_SHARE.fullmatch(symbol)
    if share:
        return f"{share[1]}-{share[2]}"
    pair, quoted = _PAIR.fullmatch(symbol), _DOLLAR_PAIR.fullmatch(symbol)
    if pair:
        return f"{pair[1]}{pair[2]}=X"
    return f"USD{quoted[1]}=X" if quoted else symbol


def _open_answer(answer: RawAnswer) -> ReadQuote:
    rows = Rows(
        [(_named(row), row) for row in _rows_of(answer)],
        asked=[_spelling(symbol) for symbol in answer.symbols],
    )
    return lambda symbol: _to_quote(symbol, rows.one(_spelling(symbol)), answer)


def _named(row: dict[str, Any]) -> str | None:
    symbol = row.get("symbol")
    return _spelling(symbol.upper()) if isinstance(symbol, str) else None


def _rows_of(answer: RawAnswer) -> list[dict[str, Any]]:
    says_too_many = answer.body[:100].strip().lower() == b"too many requests"
    if answer.status == 429 or (says_too_many and speaks_for_itself(answer)):
        raise rate_limited(answer)
    # Said of a whole list of symbols, "Not Found" does not tell which of them; without those words
    # a 404 means that the address is none any more.
    is_about_one = len(answer.symbols) == 1 and _QUOTE_PATH not in answer.url
    if answer.status in {200, 404} and is_about_one and _NOT_FOUND.search(answer.body):
        raise unknown_symbol()
    if answer.status != 200:
        raise status_error(answer)
    envelope = _envelope(read_object(answer.body))
    if envelope.get("error"):
        raise upstream_error("the provider answered with an error")
    return [_quoted(result) for result in _to_list(envelope.get("result"))]


def _envelope(body: dict[str, Any]) -> dict[str, Any]:
    if len(body) == 1:
        (envelope,) = body.values()
        if isinstance(envelope, dict):
            check_unique(envelope)
            return envelope
    raise malformed("the answer is of a kind that is not known")


def _to_list(results: object) -> list[object]:
    if not isinstance(results, list):
        raise malformed("the answer has no list of results")
    return results


def _quoted(result: object) -> dict[str, Any]:
    # A chart has the quote as its `meta`, in the words of a row of the quote call. What is no object
    # has no symbol, and costs the others nothing.
    row = result.get("meta", result) if isinstance(result, dict) else None
    return row if isinstance(row, dict) else {}


def _to_quote(symbol: str, row: dict[str, Any], answer: RawAnswer) -> Quote:
    check_unique(row)
    if row.get("regularMarketPrice") is None and _is_delisted(row):
        raise unknown_symbol()
    price = to_price(to_number(row.get("regularMarketPrice")))
    ranges = ((row.get(low), row.get(high)) for low, high in _RANGES)
    check_ranges(price, *ranges, confirmed_by=[row.get(name) for name in _PREVIOUS_CLOSES])
    observed_at = to_time(row.get("regularMarketTime"), answer.received_at)
    return Quote(
        symbol=symbol,
        price=price,
        observed_at=observed_at,
        precision="second" if observed_at else "unknown",
        currency=to_currency(row.get("currency"), quoted=quoted_currency(symbol)),
    )


def _is_delisted(row: dict[str, Any]) -> bool:
    exchange = row.get("exchange", row.get("exchangeName"))
    return row.get("quoteType") == "NONE" or exchange == _DELISTED_EXCHANGE
