"""What Alpha Vantage says in place of a quote: errors in words, nearly always with HTTP 200.

The order matters: the limit of one request a second names the daily limit and the premium plans,
several limit texts name the premium plans too, and what is premium may be said to lift the limits.
A text can repeat the key, so none is passed on.
"""

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any

from providers.base import ErrorKind, ProviderError, malformed, unknown_symbol
from providers.keys import KEY_SETTINGS
from providers.markets.hours import NEW_YORK

# "This is a premium endpoint", "outputsize=full is a premium feature"; limit texts say "premium plans".
_PREMIUM = "is a premium"
_PLAN_WORDS = ("premium", "entitle", "subscribe", "sample data")
_LIMIT = re.compile(
    r"spreading out|burst pattern|\blimits?\b|\bquota\b|call volume|call frequency|too many requests"
    r"|(?:requests|calls)(?: per |/)"
)
_A_SECOND = re.compile(r"spreading out|burst pattern|per second")
_A_DAY = re.compile(r"per day|/day|\bdaily\b|detected your api key")
_REFUSED_KEY = f"the provider refuses the key of {KEY_SETTINGS['alpha_vantage']}"
_BURST_S = 1.0
_MINUTE_S = 60.0


def check_notices(document: Mapping[str, Any], received_at: datetime) -> None:
    """Raise the ProviderError that the answer's own words stand for; return where it has none.

    Names count in any case. `message` comes with made-up sample rows beside it, which are no prices; with
    real ones it is empty, and an empty notice is none.
    """
    notices = {name.lower(): content for name, content in document.items() if not _is_empty(content)}
    if "error message" in notices:
        raise _read_error(_text(notices["error message"]))
    if "note" in notices:
        raise _limit(_text(notices["note"]), received_at)
    for name in ("information", "message"):
        if name in notices:
            raise _read_information(_text(notices[name]), received_at)


def _is_empty(content: object) -> bool:
    return not (content.strip() if isinstance(content, str) else content)


def _text(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _read_error(text: str) -> ProviderError:
    if "apikey" in text or "api key" in text:
        return _invalid_key()
    return unknown_symbol()


def _read_information(text: str, received_at: datetime) -> ProviderError:
    if _PREMIUM in text:
        return _not_entitled()
    if _LIMIT.search(text):
        return _limit(text, received_at)
    if "demo" in text:
        return _invalid_key()
    if any(words in text for words in _PLAN_WORDS):
        return _not_entitled()
    if "invalid api call" in text:
        return unknown_symbol()
    if "apikey" in text or "api key" in text:
        return _invalid_key()
    return malformed("the answer is a notice that is not known")


def _invalid_key() -> ProviderError:
    return ProviderError(kind=ErrorKind.INVALID_KEY, message=_REFUSED_KEY)


def _not_entitled() -> ProviderError:
    return ProviderError(kind=ErrorKind.NOT_ENTITLED, message="the plan does not include this call")


def _limit(text: str, received_at: datetime) -> ProviderError:
    if _A_SECOND.search(text):
        return _rate_limited("the limit of requests a second is reached", _BURST_S)
    if "per minute" not in text and _A_DAY.search(text):
        return _rate_limited("the limit of requests a day is reached", _until_next_day(received_at))
    return _rate_limited("the limit of requests a minute is reached", _MINUTE_S)


def _rate_limited(message: str, retry_after: float) -> ProviderError:
    return ProviderError(kind=ErrorKind.RATE_LIMITED, message=message, retry_after=retry_after)


def _until_next_day(received_at: datetime) -> float:
    # The hour of the reset is not published; the provider's own days are New York's. Of the likely
    # hours it is the latest, so that the first request of the new day is not refused as well.
    tomorrow = received_at.astimezone(NEW_YORK).date() + timedelta(days=1)
    reset = datetime.combine(tomorrow, time(), tzinfo=NEW_YORK)
    return (reset - received_at).total_seconds()
