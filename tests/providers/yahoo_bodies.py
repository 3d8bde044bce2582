"""Bodies as Yahoo sends them, small."""

from typing import Any

ROW = {
    "symbol": "AAPL",
    "currency": "USD",
    "exchange": "NMS",
    "regularMarketPrice": 244.6,
    "regularMarketTime": 1739566800,
    "preMarketPrice": 250.1,
}
INVALID_CRUMB = {
    "finance": {"result": None, "error": {"code": "Unauthorized", "description": "Invalid Crumb"}}
}
NOT_FOUND = {"chart": {"result": None, "error": {"code": "Not Found", "description": "No data found"}}}
QUOTE_URL = "https://query1.finance.yahoo.com/v7/finance/quote?symbols=AAPL%2CMSFT"


def quote_body(*rows: Any) -> dict[str, Any]:
    return {"quoteResponse": {"result": list(rows), "error": None}}


def chart_body(meta: Any) -> dict[str, Any]:
    return {"chart": {"result": [{"meta": meta, "indicators": {"quote": [{"close": [1.5]}]}}], "error": None}}
