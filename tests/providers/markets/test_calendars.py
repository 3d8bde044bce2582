"""Which calendar a listing has."""

import pytest

from providers.markets.calendars import ALWAYS_OPEN, CURRENCY_WEEK, calendar_of


@pytest.mark.parametrize(
    ("provider", "symbol", "calendar"),
    [
        ("yfinance", "AAPL", "XNYS"),
        ("yfinance", "BRK-B", "XNYS"),
        ("yfinance", "BRK.B", "XNYS"),
        ("finnhub", "BRK.A", "XNYS"),
        ("alpha_vantage", "DJIA", "XNYS"),
        ("yfinance", "OCDO.L", "XLON"),
        ("yfinance", "MUV2.DE", "XETR"),
        ("yfinance", "AIR.PA", "XPAR"),
        ("finnhub", "SHOP.TO", "XTSE"),
        ("yfinance", "0700.HK", "XHKG"),
        ("yfinance", "7203.T", "XTKS"),
        ("yfinance", "ALL.AX", "XASX"),
        ("yfinance", "ORSTED.CO", "XCSE"),
        ("yfinance", "VOLV-B.ST", "XSTO"),
        ("yfinance", "WSKT.JK", "XIDX"),
        ("yfinance", "NESN.SW", "XSWX"),
        ("yfinance", "M&M.NS", "XBOM"),
        ("alpha_vantage", "TSCO.LON", "XLON"),
        ("alpha_vantage", "SHOP.TRT", "XTSE"),
        ("alpha_vantage", "MBG.DEX", "XETR"),
        ("alpha_vantage", "RELIANCE.BSE", "XBOM"),
        ("alpha_vantage", "600104.SHH", "XSHG"),
        ("alpha_vantage", "SOLB.BR", "XBRU"),
        # A suffix means what its provider means by it.
        ("alpha_vantage", "7203.T", None),
        ("yfinance", "RELIANCE.BSE", None),
        ("yfinance", "SIE.F", None),
        ("yfinance", "BTC-USD", ALWAYS_OPEN),
        ("yfinance", "ETH-BTC", ALWAYS_OPEN),
        ("finnhub", "BINANCE:BTCUSDT", ALWAYS_OPEN),
        ("finnhub", "KRAKEN:EUR-USD", ALWAYS_OPEN),
        ("alpha_vantage", "BTC/CNY", ALWAYS_OPEN),
        ("simulated", "SIM-A", ALWAYS_OPEN),
        ("simulated", "AAPL", None),
        ("yfinance", "EURUSD=X", CURRENCY_WEEK),
        ("yfinance", "JPY=X", CURRENCY_WEEK),
        ("yfinance", "USD/JPY", CURRENCY_WEEK),
        ("alpha_vantage", "USD/JPY", CURRENCY_WEEK),
        ("finnhub", "OANDA:EUR_USD", CURRENCY_WEEK),
        ("finnhub", "FHFX:USD-JPY", CURRENCY_WEEK),
        ("finnhub", "IC MARKETS:1", None),
        ("finnhub", "OANDA:XAU_USD", None),
        ("finnhub", "OANDA:SPX500_USD", None),
        ("alpha_vantage", "XAU/USD", None),
        ("yfinance", "XAUUSD=X", None),
        ("yfinance", "^GSPC", None),
        ("yfinance", "GC=F", None),
        ("yfinance", "VFINX", None),
        ("yfinance", "0P000071W8.TO", None),
        ("yfinance", "AAPL-2", None),
        ("no such provider", "AAPL", None),
        ("yfinance", "", None),
    ],
)
def test_calendar_by_provider_and_spelling(provider: str, symbol: str, calendar: str | None) -> None:
    assert calendar_of(symbol, provider=provider) == calendar
