"""Alpha Vantage: the last close of a listing (GLOBAL_QUOTE), or the rate of a pair such as USD/JPY.

Nearly every answer comes with HTTP 200, errors too: the text decides. One symbol a request.
Source: Alpha Vantage's documentation; recorded answers in provider_responses/alpha_vantage/.
"""

import contextlib
import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.conf import settings

from providers.adapters.alpha_vantage_notices import check_notices
from providers.adapters.own_key import key_of
from providers.adapters.parsing import (
    ReadQuote,
    Rows,
    begins_with,
    check_ranges,
    check_time,
    check_unique,
    read_answer,
    read_object,
    speaks_for_itself,
    status_error,
    to_currency,
)
from providers.base import (
    ErrorKind,
    Precision,
    Provider,
    ProviderError,
    Quote,
    RawAnswer,
    Request,
    Results,
    malformed,
    to_price,
)
from providers.http import client as http
from providers.markets.hours import NEW_YORK, MarketState, day_close, market_hours

_PAIR = re.compile(r"([A-Z0-9]{2,10})/([A-Z0-9]{2,10})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?")
_QUOTES = re.compile(r"global quote|realtime currency exchange rate|stock quotes", re.IGNORECASE)
# The only zones seen in answers; a name from outside never reaches the zone files.
_ZONES: dict[object, tzinfo] = {"UTC": UTC, "US/Eastern": NEW_YORK}
# What a notice is believed to say where the status is that of an error as well; else the status tells.
_SAID_BESIDE_ANY_STATUS = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.INVALID_KEY, ErrorKind.NOT_ENTITLED})
_SAID_BESIDE_A_STATUS = dict.fromkeys((400, 404), _SAID_BESIDE_ANY_STATUS | {ErrorKind.UNKNOWN_SYMBOL})
# East of Greenwich markets trade on a date that UTC has not reached yet.
_DATE_AHEAD = timedelta(hours=14)


class AlphaVantage(Provider):
    """Adapter of Alpha Vantage. Symbols are spelled as the provider does (RELIANCE.BSE, USD/JPY)."""

    name = "alpha_vantage"

    def plan(self, symbols: Sequence[str], *, singly: bool = False) -> list[Request]:
        """Return one request for each symbol."""
        return [Request(call=_call_for(symbol), symbols=(symbol,)) for symbol in symbols]

    def fetch(self, request: Request) -> RawAnswer:
        """Send one request; the key travels in the query, because the provider takes it nowhere else."""
        query = {"function": request.call, **_symbol_query(request.symbols[0])}
        return http.get(
            self.name,
            request.symbols,
            url=f"{settings.ALPHA_VANTAGE_BASE_URL.rstrip('/')}/query?{urlencode(query)}",
            secret_params={"apikey": key_of(self.name)},
        )

    def parse(self, answer: RawAnswer) -> Results:
        """Read GLOBAL_QUOTE (JSON or CSV), CURRENCY_EXCHANGE_RATE, or the old BATCH_STOCK_QUOTES.

        Prices are in the listing's own unit (London: pence), without a currency save for pairs.
        `observed_at` of a GLOBAL_QUOTE has day precision, of the others it is a second.
        """
        return read_answer(answer, _open_answer)


@dataclass(frozen=True, slots=True)
class _Row:
    price: object
    stamp: object
    # None: the stamp is a trading day, not a moment.
    zone: object = None
    currency: object = None
    low: object = None
    high: object = None
    previous_close: object = None
    # The last price of the regular hours, whenever the stamp is.
    is_regular: bool = False
    # What all of it was read from.
    fields: Mapping[str, Any] = field(default_factory=dict)


# Each row behind the symbol that it is about.
Table = list[tuple[object, _Row]]


def _call_for(symbol: str) -> str:
    return "CURRENCY_EXCHANGE_RATE" if _PAIR.fullmatch(symbol) else "GLOBAL_QUOTE"


def _symbol_query(symbol: str) -> dict[str, str]:
    pair = _PAIR.fullmatch(symbol)
    if pair is None:
        return {"symbol": symbol}
    return {"from_currency": pair[1], "to_currency": pair[2]}


def _open_answer(answer: RawAnswer) -> ReadQuote:
    rows = Rows(_rows_of(answer), asked=answer.symbols)
    return lambda symbol: _to_quote(symbol, rows.one(symbol), answer.received_at)


def _rows_of(answer: RawAnswer) -> Table:
    if answer.status != 200:
        raise _refusal(answer)
    if begins_with(answer.body, b"symbol,"):
        return _csv_rows(answer.body)
    document = read_object(answer.body)
    check_notices(document, answer.received_at)
    return _json_rows(document)


def _refusal(answer: RawAnswer) -> ProviderError:
    if speaks_for_itself(answer):
        try:
            check_notices(read_object(answer.body), answer.received_at)
        except ProviderError as error:
            if error.kind in _SAID_BESIDE_A_STATUS.get(answer.status, _SAID_BESIDE_ANY_STATUS):
                return error
    return status_error(answer)


def _json_rows(document: dict[str, Any]) -> Table:
    # With entitlement=delayed the name goes on: "Global Quote - DATA DELAYED BY 15 MINUTES".
    quotes = [(name.lower(), content) for name, content in document.items() if _QUOTES.match(name)]
    if len(quotes) > 1:
        raise malformed("the answer gives several quotes in place of one")
    for name, content in quotes:
        if name.startswith("global"):
            return _listing_rows(_to_dict(content))
        if name.startswith("realtime"):
            return _pair_rows(_to_dict(content))
        return _batch_rows(content, _to_dict(document.get("Meta Data")))
    if str(document.get("endpoint")).lower() == "realtime bulk quotes":
        return _bulk_rows(document.get("data"))
    if document:
        raise malformed("the answer is of a kind that is not known")
    return []


def _listing_rows(quote: dict[str, Any]) -> Table:
    row = _Row(
        price=quote.get("05. price"),
        stamp=quote.get("07. latest trading day"),
        low=quote.get("04. low"),
        high=quote.get("03. high"),
        previous_close=quote.get("08. previous close"),
        fields=quote,
    )
    return [(quote.get("01. symbol"), row)] if quote else []


def _pair_rows(rate: dict[str, Any]) -> Table:
    base, quoted = rate.get("1. From_Currency Code"), rate.get("3. To_Currency Code")
    row = _Row(
        price=rate.get("5. Exchange Rate"),
        stamp=rate.get("6. Last Refreshed"),
        zone=rate.get("7. Time Zone", "?"),
        currency=quoted,
        low=rate.get("8. Bid Price"),
        high=rate.get("9. Ask Price"),
        fields=rate,
    )
    return [(f"{base}/{quoted}", row)] if rate else []


def _batch_rows(content: object, meta: dict[str, Any]) -> Table:
    zone = meta.get("3. Time Zone", "?")
    return [
        (
            row.get("1. symbol"),
            _Row(price=row.get("2. price"), stamp=row.get("4. timestamp"), zone=zone, fields=row),
        )
        for row in _to_objects(content)
    ]


def _bulk_rows(content: object) -> Table:
    return [
        (
            row.get("symbol"),
            _Row(
                price=row.get("close"),
                stamp=row.get("timestamp"),
                zone="US/Eastern",
                low=row.get("low"),
                high=row.get("high"),
                previous_close=row.get("previous_close"),
                is_regular=True,
                fields=row,
            ),
        )
        for row in _to_objects(content)
    ]


def _to_objects(content: object) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise malformed("the answer has no list of quotes")
    # One that is no object has no symbol, and costs the others nothing.
    return [row if isinstance(row, dict) else {} for row in content]


def _to_dict(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise malformed("the answer has no quote in it")
    return content


def _csv_rows(body: bytes) -> Table:
    with contextlib.suppress(UnicodeDecodeError, csv.Error):
        reader = csv.DictReader(body.decode("utf-8-sig").strip().splitlines(), strict=True)
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise malformed("the CSV gives a column twice")
        rows = list(reader)
        return [(row.get("symbol"), _csv_row(row)) for row in rows]
    raise malformed("the answer is not CSV")


def _csv_row(row: dict[str | Any, str | Any]) -> _Row:
    # A row that was cut short can end in the middle of the price.
    if None in row or None in row.values():
        raise malformed("a row of the CSV is not complete")
    return _Row(
        price=row.get("price"),
        stamp=row.get("latestDay"),
        low=row.get("low"),
        high=row.get("high"),
        previous_close=row.get("previousClose"),
    )


def _to_quote(symbol: str, row: _Row, received_at: datetime) -> Quote:
    check_unique(row.fields)
    if not isinstance(row.price, str | Decimal):
        raise malformed("the price is missing")
    price = to_price(row.price)
    check_ranges(price, (row.low, row.high), confirmed_by=[row.previous_close])
    observed_at, precision = _observed(symbol, row, received_at)
    return Quote(
        symbol=symbol,
        price=price,
        observed_at=observed_at,
        precision=precision,
        currency=to_currency(row.currency),
    )


def _observed(symbol: str, row: _Row, received_at: datetime) -> tuple[datetime | None, Precision]:
    if row.stamp is None:
        return None, "unknown"
    if row.zone is not None:
        moment = _to_moment(row.stamp, row.zone, received_at)
        return _in_hours(symbol, moment) if row.is_regular else moment, "second"
    day = _to_day(row.stamp, received_at)
    return day_close(symbol, provider=AlphaVantage.name, day=day, received_at=received_at), "day"


def _in_hours(symbol: str, moment: datetime) -> datetime:
    # In extended hours the stamp is that of their trades, and the regular price is from the last close.
    hours = market_hours(symbol, provider=AlphaVantage.name, moment=moment)
    if hours is None:
        raise malformed("the time of the price cannot be told from its stamp")
    return moment if hours.state == MarketState.OPEN else hours.closed_at


def _to_moment(stamp: object, zone: object, received_at: datetime) -> datetime:
    if isinstance(stamp, str) and _MOMENT.fullmatch(stamp) and isinstance(zone, str) and zone in _ZONES:
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(stamp).replace(tzinfo=_ZONES[zone])
            return check_time(moment, received_at).astimezone(UTC)
    raise malformed("the time of the price cannot be read")


def _to_day(stamp: object, received_at: datetime) -> date:
    if isinstance(stamp, str) and _DAY.fullmatch(stamp):
        with contextlib.suppress(ValueError):
            day = date.fromisoformat(stamp)
            check_time(datetime.combine(day, time(), tzinfo=UTC), received_at + _DATE_AHEAD)
            return day
    raise malformed("the trading day cannot be read")
