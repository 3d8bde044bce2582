"""Yahoo's wire format: cookie, crumb, GET /v8/finance/chart/SYM, GET /v7/finance/quote?symbols=A,B&crumb=.

The quote call refuses whoever has no crumb, the crumb whoever has no cookie. There is no key. All of Yahoo's
hosts are here; the one of the cookie is known by the header X-Forwarded-Host.
"""

from collections.abc import Mapping
from urllib.parse import unquote

from providers.adapters.yahoo.adapter import quoted_currency
from providers.simulator.answers import Answer, Ask, json_body
from providers.simulator.prices import day_prices, is_known
from providers.simulator.rate import Standing

CHART, QUOTE, GET_CRUMB = "/v8/finance/chart/", "/v7/finance/quote", "/v1/test/getcrumb"
CRUMB, COOKIE = "simulated.crumb", "A3=simulated"

_TEXT = "text/plain; charset=utf-8"


class YahooDialect:
    """Says errors by the status; a symbol that it does not know is left out of a list."""

    name = "yfinance"

    def takes(self, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether the request is for one of Yahoo's hosts."""
        is_for_cookie = path == "/" and headers.get("x-forwarded-host") == "fc.yahoo.com"
        return is_for_cookie or path in {QUOTE, GET_CRUMB} or path.startswith(CHART)

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Ask:
        """Read a request; what stands for its key is the crumb, or the cookie where that is asked for."""
        if path.startswith(CHART):
            return Ask(call="chart", symbol=unquote(path.removeprefix(CHART)), key=CRUMB)
        if path == QUOTE:
            return Ask(call="quote", symbol=query.get("symbols", ""), key=query.get("crumb", ""))
        if path == GET_CRUMB:
            return Ask(call="crumb", symbol="", key=headers.get("cookie", ""))
        return Ask(call="cookie", symbol="", key=COOKIE)

    def blank_key(self) -> Answer:
        """Refuse as `invalid_key`."""
        return self.invalid_key()

    def invalid_key(self) -> Answer:
        """Refuse the crumb."""
        return _error("invalid_key", 401, "Unauthorized", "Invalid Crumb")

    def not_entitled(self) -> Answer:
        """Refuse with 403."""
        return _error("not_entitled", 403, "Forbidden", "The symbol is not available.")

    def rate_limited(self, ask: Ask, standing: Standing) -> Answer:
        """Refuse with 429, and no word of when to come again."""
        return Answer("rate_limited", b"Too Many Requests\r\n", 429, _TEXT)

    def in_place_of_quote(self, ask: Ask) -> Answer | None:
        """Return the cookie or the crumb; refuse a crumb that is another, and a call that names no symbol."""
        match ask.call:
            case "cookie":
                return Answer("cookie", status=404, headers={"Set-Cookie": f"{COOKIE}; path=/"})
            case "crumb" if COOKIE in ask.key:
                return Answer("crumb", CRUMB.encode(), content_type=_TEXT)
        if ask.key != CRUMB:
            return self.invalid_key()
        return None if ask.symbol else _error("bad_request", 400, "Bad Request", "No symbol is named.")

    def knows(self, ask: Ask) -> bool:
        """Return whether there is a price of a symbol; a list is answered without those that have none."""
        return ask.call == "quote" or is_known(ask.symbol)

    def unknown_symbol(self, ask: Ask) -> Answer:
        """Refuse with 404."""
        return Answer("unknown_symbol", _envelope("chart", None, "Not Found", "No data found"), 404)

    def quote(self, ask: Ask, second: int) -> Answer:
        """Return the chart of one symbol, or the quotes of all that are known."""
        if ask.call == "chart":
            chart = {"meta": _row(ask.symbol, second), "indicators": {"quote": [{}]}}
            return Answer("quote", json_body({"chart": {"result": [chart], "error": None}}))
        rows = [_row(symbol, second) for symbol in ask.symbol.split(",") if is_known(symbol)]
        return Answer("quote", json_body({"quoteResponse": {"result": rows, "error": None}}))

    def standing_headers(self, standing: Standing) -> dict[str, str]:
        """Return none: this provider tells nothing of what is left."""
        return {}


def _row(symbol: str, second: int) -> dict[str, object]:
    prices = day_prices(symbol, second)
    return {
        "symbol": symbol,
        "currency": quoted_currency(symbol) or "USD",
        "exchangeName": "NMS",
        "regularMarketTime": second,
        # Two decimals each, which a float writes as they are.
        "regularMarketPrice": float(prices.last),
        "regularMarketDayHigh": float(prices.high),
        "regularMarketDayLow": float(prices.low),
        "previousClose": float(prices.previous),
    }


def _error(outcome: str, status: int, code: str, description: str) -> Answer:
    return Answer(outcome, _envelope("finance", None, code, description), status)


def _envelope(name: str, result: object, code: str, description: str) -> bytes:
    return json_body({name: {"result": result, "error": {"code": code, "description": description}}})
