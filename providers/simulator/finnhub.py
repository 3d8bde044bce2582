"""Finnhub's wire format: GET /api/v1/quote?symbol=, the key in the header X-Finnhub-Token."""

from collections.abc import Mapping
from decimal import Decimal

from providers.simulator.answers import Answer, Ask, json_body
from providers.simulator.prices import day_prices, is_known
from providers.simulator.rate import Standing

NO_QUOTE = b'{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


class FinnhubDialect:
    """Says errors by the status, and tells of its limit in the headers of every answer."""

    name = "finnhub"

    def takes(self, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether it is the one path that there is."""
        return path == "/api/v1/quote"

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Ask:
        """Read a request; the key may also be in the query, as `token`."""
        key = headers.get("x-finnhub-token") or query.get("token", "")
        return Ask(call="quote", symbol=query.get("symbol", ""), key=key)

    def blank_key(self) -> Answer:
        """Refuse with 429, which no waiting cures: the text alone tells it from a limit."""
        text = b"API limit reached. Please sign up for a free account to go on"
        return Answer("invalid_key", text, 429, "text/plain; charset=utf-8")

    def invalid_key(self) -> Answer:
        """Refuse with 401."""
        return _error("invalid_key", 401, "Invalid API key.")

    def not_entitled(self) -> Answer:
        """Refuse with 403."""
        return _error("not_entitled", 403, "You don't have access to this resource.")

    def rate_limited(self, ask: Ask, standing: Standing) -> Answer:
        """Refuse with 429."""
        return _error("rate_limited", 429, "API limit reached. Please try again later.")

    def in_place_of_quote(self, ask: Ask) -> Answer | None:
        """Refuse a request that names no symbol."""
        return None if ask.symbol else _error("bad_request", 422, "No symbol is named.")

    def knows(self, ask: Ask) -> bool:
        """Return whether the symbol has a price."""
        return is_known(ask.symbol)

    def unknown_symbol(self, ask: Ask) -> Answer:
        """Return the quote that stands for none: 200, and zeros."""
        return Answer("unknown_symbol", NO_QUOTE)

    def quote(self, ask: Ask, second: int) -> Answer:
        """Return the last price and when it was traded."""
        prices = day_prices(ask.symbol, second)
        members = {
            "c": prices.last,
            "d": prices.change,
            "dp": prices.change_percent,
            "h": prices.high,
            "l": prices.low,
            "o": prices.open,
            "pc": prices.previous,
            "t": Decimal(second),
        }
        # By hand: json writes no Decimal, and a float could have other digits.
        text = ",".join(f'"{name}":{_number(value)}' for name, value in members.items())
        return Answer("quote", f"{{{text}}}".encode())

    def standing_headers(self, standing: Standing) -> dict[str, str]:
        """Return the three x-ratelimit headers."""
        return {
            "x-ratelimit-limit": str(standing.limit.requests),
            "x-ratelimit-remaining": str(standing.remaining),
            "x-ratelimit-reset": str(standing.resets_at),
        }


def _error(outcome: str, status: int, text: str) -> Answer:
    return Answer(outcome, json_body({"error": text}), status)


def _number(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
