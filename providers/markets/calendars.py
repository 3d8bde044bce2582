"""Which calendar a listing has: an exchange's, the currency market's, or that of what trades always.

It follows from the symbol as its provider spells it; where that does not tell, the calendar is unknown,
and nothing is guessed.
"""

import re
from collections.abc import Callable
from typing import Any

from providers.keys import SIMULATED_PREFIX

ALWAYS_OPEN = "always open"
CURRENCY_WEEK = "currency week"
_US = "XNYS"


def _table(text: str) -> dict[str, str]:
    return dict(entry.split(":") for entry in text.split())


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Not here, so that their listings have no calendar: Frankfurt's floor (.F: its hours are not those of
# XFRA), Seoul (exchange_calendars takes 3 to 12 s to make it), Tel Aviv and Athens (4.13 cannot make
# them on pandas 3), and exchanges whose holidays it may know for a few years only without saying so
# (Taipei, Istanbul, Bangkok, Kuala Lumpur).
_YAHOO_SUFFIXES = _table(
    """
    L:XLON IR:XDUB DE:XETR DU:XDUS HM:XHAM SG:XSTU VI:XWBO PA:XPAR AS:XAMS BR:XBRU LS:XLIS MI:XMIL MC:XMAD
    SW:XSWX CO:XCSE ST:XSTO HE:XHEL OL:XOSL IC:XICE WA:XWAR PR:XPRA BD:XBUD TO:XTSE V:XTSE MX:XMEX SA:BVMF
    BA:XBUE SN:XSGO HK:XHKG SS:XSHG SZ:XSHG T:XTKS SI:XSES JK:XIDX NS:XBOM BO:XBOM AX:XASX
    NZ:XNZE JO:XJSE SR:XSAU
    """
)
_ALPHA_VANTAGE_SUFFIXES = _table(
    """
    LON:XLON TRT:XTSE TRV:XTSE DEX:XETR BSE:XBOM SHH:XSHG SHZ:XSHG SAO:BVMF PAR:XPAR AMS:XAMS BR:XBRU
    """
)

# ISO 4217, and CNH, the yuan outside China. Metals are no currencies here: they pause each day.
CURRENCIES = _words(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
    CAD CDF CHF CLF CLP CNH CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS
    GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD
    KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO
    NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS
    SRD SSP STN SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD
    XOF XPF YER ZAR ZMW ZWG
    """
)
_METALS = frozenset({"XAG", "XAU", "XPD", "XPT"})
_COINS = frozenset({"BTC", "ETH", "USDC", "USDT"})
_COIN_EXCHANGES = _words(
    """
    BINANCE BINANCEUS BITFINEX BITMEX BITTREX BYBIT COINBASE GATEIO GEMINI HITBTC HUOBI KRAKEN KUCOIN
    OKEX POLONIEX
    """
)

_SIMULATED = re.compile(f"{SIMULATED_PREFIX}.*")
_US_LISTING = re.compile(r"[A-Z]{1,5}(?:[.-][AB])?")
# Five letters with an X at the end, or an id of Morningstar's: a fund, priced once a day, hours later.
_FUND = re.compile(r"[A-Z]{4}X|0P[0-9A-Z]{8}(?:\..*)?")
_LISTING = re.compile(r"[A-Z0-9&-]+\.([A-Z]{1,3})")
_SLASH_PAIR = re.compile(r"([A-Z0-9]{2,10})/([A-Z0-9]{2,10})")
_YAHOO_PAIR = re.compile(r"([A-Z]{3})?([A-Z]{3})=X")
_YAHOO_COIN = re.compile(r"[A-Z0-9]+-([A-Z]{3,4})")
_FINNHUB_PAIR = re.compile(r"([A-Z0-9 ]+):(?:([A-Z]{3})[-_/]?([A-Z]{3})|.+)")


def calendar_of(symbol: str, *, provider: str) -> str | None:
    """Return the listing's calendar: an exchange's code, ALWAYS_OPEN, CURRENCY_WEEK; None: unknown."""
    if _SIMULATED.fullmatch(symbol):
        return ALWAYS_OPEN
    reader = _READERS.get(provider)
    if reader is None or _FUND.fullmatch(symbol):
        return None
    return _US if _US_LISTING.fullmatch(symbol) else reader(symbol)


def _alpha_vantage_calendar(symbol: str) -> str | None:
    pair = _SLASH_PAIR.fullmatch(symbol)
    if pair is None:
        return _exchange_of(symbol, _ALPHA_VANTAGE_SUFFIXES)
    # The provider knows currencies, coins and metals, and nothing else, by this spelling.
    legs = set(pair.groups())
    return _currency_calendar(legs) or (None if legs & _METALS else ALWAYS_OPEN)


def _finnhub_calendar(symbol: str) -> str | None:
    pair = _FINNHUB_PAIR.fullmatch(symbol)
    if pair is None:
        return _exchange_of(symbol, _YAHOO_SUFFIXES)
    # Before the currencies: Kraken trades EUR against USD on Sundays too.
    return ALWAYS_OPEN if pair[1] in _COIN_EXCHANGES else _currency_calendar({pair[2], pair[3]})


def _yahoo_calendar(symbol: str) -> str | None:
    pair = _YAHOO_PAIR.fullmatch(symbol) or _SLASH_PAIR.fullmatch(symbol)
    if pair:
        return _currency_calendar({pair[1] or "USD", pair[2]})
    coin = _YAHOO_COIN.fullmatch(symbol)
    if coin:
        return ALWAYS_OPEN if coin[1] in CURRENCIES | _COINS else None
    return _exchange_of(symbol, _YAHOO_SUFFIXES)


# Finnhub spells exchanges as Yahoo does, Alpha Vantage in its own way.
_READERS: dict[str, Callable[[str], str | None]] = {
    "alpha_vantage": _alpha_vantage_calendar,
    "finnhub": _finnhub_calendar,
    "yfinance": _yahoo_calendar,
}


def _currency_calendar(legs: set[str | Any]) -> str | None:
    return CURRENCY_WEEK if legs <= CURRENCIES else None


def _exchange_of(symbol: str, suffixes: dict[str, str]) -> str | None:
    listing = _LISTING.fullmatch(symbol)
    return suffixes.get(listing[1]) if listing else None
