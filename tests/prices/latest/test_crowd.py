"""A crowd waits for a provider that hangs: the real server goes on answering everybody else."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import requests
from django.conf import settings as django_settings

from tests.prices.two_providers import KEYS, TwoProviders, add_point, finnhub_quote
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
CROWD = 40
MAY_WAIT = 8


@pytest.fixture
def product(providers: TwoProviders, tmp_path: Path) -> Iterator[Product]:
    """Yield a web server whose callers would wait for longer than the test takes."""
    running = Product(
        tmp_path,
        FINNHUB_API_KEY=KEYS["finnhub"],
        FINNHUB_BASE_URL=django_settings.FINNHUB_BASE_URL,
        LATEST_DEADLINE_S="60",
        PROVIDER_TIMEOUT_S="60",
    )
    running.start("web")
    wait_until(lambda: running.is_healthy("web"))
    yield running
    running.close()


@pytest.mark.parametrize(
    ("symbol_of", "fetches"),
    [(lambda _number: "COLD", 1), (lambda number: f"COLD{number}", MAY_WAIT)],
    ids=["one-symbol", "many-symbols"],
)
def test_crowd_that_waits_leaves_half_of_the_threads_to_others(
    providers: TwoProviders, product: Product, symbol_of: Callable[[int], str], fetches: int
) -> None:
    add_point("finnhub", observed_s_ago=1, received_s_ago=-60, symbol="WARM")
    providers.hang("finnhub", then=finnhub_quote())

    def call(path: str) -> requests.Response:
        return requests.get(f"http://{product.address}{path}", timeout=60)

    with ThreadPoolExecutor(CROWD) as crowd:
        calls = [
            crowd.submit(call, f"/prices/latest?symbol={symbol_of(number)}&provider=finnhub")
            for number in range(CROWD)
        ]
        refused = finished(calls, CROWD - MAY_WAIT)
        assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refused} == {(503, "1")}
        wait_until(lambda: providers.requests("finnhub") == fetches)
        for path in ("/prices/latest?symbol=WARM&provider=finnhub", "/jobs", "/livez", "/readyz"):
            assert call(path).status_code == 200, path
        assert sum(future.done() for future in calls) == CROWD - MAY_WAIT
        providers.release.set()
        wait(calls, 30)
    # Refused ones came before; whoever waited was served.
    served = [future.result() for future in calls if future.result().status_code != 503]
    assert [answer.status_code for answer in served] == [200] * MAY_WAIT
    assert {answer.json()["price"] for answer in served} == {150.25}
    assert providers.requests("finnhub") == fetches


def finished(calls: list[Future[requests.Response]], count: int) -> list[requests.Response]:
    """Return the answers of the calls that have ended, once so many have."""
    wait_until(lambda: sum(call.done() for call in calls) >= count)
    return [call.result() for call in calls if call.done()]
