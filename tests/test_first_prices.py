"""The first call of a newcomer: default settings and budgets, a provider that answers at once."""

import time
from pathlib import Path

import requests

from providers.simulator.simulator import Simulator
from tests.product import Product
from tests.simulator import pointing_at
from tests.waiting import wait_until


def test_first_price_of_each_provider_is_answered(
    transactional_db: None, topic: str, tmp_path: Path, simulator: Simulator
) -> None:
    product = Product(tmp_path, **pointing_at(simulator))
    try:
        product.start("web")
        wait_until(lambda: product.is_healthy("web"))
        taken_s = {}
        for provider in ("finnhub", "alpha_vantage", "yfinance"):
            started = time.monotonic()
            url = f"http://{product.address}/prices/latest?symbol=AAPL&provider={provider}"
            answer = requests.get(url, timeout=10)
            taken_s[provider] = time.monotonic() - started
            assert (answer.status_code, answer.json()["provider"]) == (200, provider)
        # A second of Yahoo's is the budget's: cookie, crumb and data are three requests at two a second.
        assert max(taken_s.values()) < 5, taken_s
    finally:
        product.close()
