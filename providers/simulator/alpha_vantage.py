"""Alpha Vantage's wire format: GET /query?function=GLOBAL_QUOTE&symbol=&apikey=, as JSON or CSV.

Also function=CURRENCY_EXCHANGE_RATE&from_currency=&to_currency=. Every answer is 200. The texts are
written around the words by which clients tell errors apart; which one is meant stands in the log.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from zlib import crc32

from providers.markets.hours import NEW_YORK
from providers.simulator.answers import Answer, Ask, json_body
from providers.simulator.prices import day_prices, is_known
from providers.simulator.rate import Standing

QUOTE, PAIR = "GLOBAL_QUOTE", "CURRENCY_EXCHANGE_RATE"
CSV = "application/x-download"

_MINUTE_S, _HOUR_S = 60, 3600
_UNITS_S = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
_SATURDAY = 5


class AlphaVantageDialect:
    """Says every error in words, and asks for CSV or not: errors are JSON."""

    name = "alpha_vantage"

    def takes(self, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether it is the one path that there is."""
        return path == "/query"

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Ask:
        """Read a request; a pair of currencies becomes a symbol such as USD/JPY."""
        pair = [query.get(name, "") for name in ("from_currency", "to_currency")]
        call = query.get("function", "")
        return Ask(
            call=call,
            symbol="/".join(filter(None, pair)) if call == PAIR else query.get("symbol", ""),
            key=query.get("apikey", ""),
            is_csv=query.get("datatype") == "csv",
        )

    def blank_key(self) -> Answer:
        """Refuse: any other key is taken."""
        return self.invalid_key()

    def invalid_key(self) -> Answer:
        """Refuse the parameter apikey."""
        text = "the parameter apikey is invalid or missing. Please claim your free API key."
        return _notice("invalid_key", "Error Message", text)

    def not_entitled(self) -> Answer:
        """Refuse in words that name the premium plans and no limit."""
        return _notice("not_entitled", "Information", "This is a premium endpoint of the simulated provider.")

    def rate_limited(self, ask: Ask, standing: Standing) -> Answer:
        """Refuse in one of the three ways that there are: for a second, a minute, or the day.

        A window of less than a minute is told as a burst, and one of an hour or more as a day. The
        text of the day repeats the key, as the real one does: it must reach no log and no table.
        """
        requests, window_s = standing.limit.requests, standing.limit.window_s
        allowed = f"{requests} calls per {_span(window_s)}"
        if window_s < _MINUTE_S:
            text = f"Please consider spreading out your requests: {allowed}."
            return _notice("rate_limited", "Information", text)
        if window_s < _HOUR_S:
            return _notice("rate_limited", "Note", f"Our standard API call frequency is {allowed}.")
        text = f"We have detected your API key as {ask.key} and our API rate limit is {allowed}."
        return _notice("rate_limited", "Information", text)

    def in_place_of_quote(self, ask: Ask) -> Answer | None:
        """Refuse a function that is not simulated, and a call that names no symbol."""
        if ask.call not in {QUOTE, PAIR}:
            return _notice("bad_request", "Error Message", "This API function does not exist.")
        is_named = "/" in ask.symbol if ask.call == PAIR else ask.symbol
        return None if is_named else self._invalid_call("bad_request")

    def knows(self, ask: Ask) -> bool:
        """Return whether the symbol has a price."""
        return is_known(ask.symbol)

    def unknown_symbol(self, ask: Ask) -> Answer:
        """Return the quote that stands for none."""
        if ask.call == PAIR:
            return self._invalid_call("unknown_symbol")
        return Answer("unknown_symbol", json_body({} if ask.is_csv else {"Global Quote": {}}))

    def quote(self, ask: Ask, second: int) -> Answer:
        """Return the price and its trading day; of a pair, the rate and its second."""
        if ask.call == PAIR:
            return Answer("quote", json_body({"Realtime Currency Exchange Rate": _rate(ask.symbol, second)}))
        columns = _columns(ask.symbol, second)
        if ask.is_csv:
            rows = (",".join(columns), ",".join(columns.values()), "")
            return Answer("quote", "\r\n".join(rows).encode(), content_type=CSV)
        named = zip(_MEMBERS, columns.values(), strict=True)
        return Answer("quote", json_body({"Global Quote": dict(named)}))

    def standing_headers(self, standing: Standing) -> dict[str, str]:
        """Return none: this provider tells nothing of what is left."""
        return {}

    def _invalid_call(self, outcome: str) -> Answer:
        return _notice(outcome, "Error Message", "Invalid API call. Please read the documentation.")


_MEMBERS = (
    "01. symbol",
    "02. open",
    "03. high",
    "04. low",
    "05. price",
    "06. volume",
    "07. latest trading day",
    "08. previous close",
    "09. change",
    "10. change percent",
)


def _span(window_s: float) -> str:
    for name, unit_s in _UNITS_S.items():
        if window_s % unit_s == 0:
            count = int(window_s // unit_s)
            return name if count == 1 else f"{count} {name}s"
    return f"{window_s:g} seconds"


def _columns(symbol: str, second: int) -> dict[str, str]:
    prices = day_prices(symbol, second)
    return {
        "symbol": symbol,
        "open": f"{prices.open:.4f}",
        "high": f"{prices.high:.4f}",
        "low": f"{prices.low:.4f}",
        "price": f"{prices.last:.4f}",
        "volume": str(crc32(symbol.encode()) % 10_000_000),
        "latestDay": _trading_day(second).isoformat(),
        "previousClose": f"{prices.previous:.4f}",
        "change": f"{prices.change:.4f}",
        "changePercent": f"{prices.change_percent:.4f}%",
    }


def _trading_day(second: int) -> date:
    # The date in New York, or the Friday before; the simulated market knows no holidays.
    day = datetime.fromtimestamp(second, tz=NEW_YORK).date()
    return day - timedelta(days=max(day.weekday() - _SATURDAY + 1, 0))


def _rate(pair: str, second: int) -> dict[str, str]:
    base, _, quoted = pair.partition("/")
    rate = f"{day_prices(pair, second).last:.8f}"
    return {
        "1. From_Currency Code": base,
        "2. From_Currency Name": base,
        "3. To_Currency Code": quoted,
        "4. To_Currency Name": quoted,
        "5. Exchange Rate": rate,
        "6. Last Refreshed": f"{datetime.fromtimestamp(second, tz=UTC):%Y-%m-%d %H:%M:%S}",
        "7. Time Zone": "UTC",
        "8. Bid Price": rate,
        "9. Ask Price": rate,
    }


def _notice(outcome: str, name: str, text: str) -> Answer:
    return Answer(outcome, json_body({name: text}))
