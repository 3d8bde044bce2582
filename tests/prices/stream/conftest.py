"""Fixtures of the stream's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prices.models import AverageBatch
from tests.consumers.samples import EventStore
from tests.prices.stream.listening import Listener
from tests.product import Product
from tests.waiting import wait_until

Listen = Callable[..., Listener]


@pytest.fixture(autouse=True)
def first_note(transactional_db: None) -> None:
    """Let the notes begin as the migration leaves them; other tests delete every row."""
    AverageBatch.objects.create(number=0, rows=0, added=[], changed=[])


@pytest.fixture
def make_store(first_note: None) -> Iterator[Callable[[], EventStore]]:
    """Yield a function that makes a store, as a consumer of its own would have one."""
    made: list[EventStore] = []

    def make() -> EventStore:
        made.append(EventStore())
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: Callable[[], EventStore]) -> EventStore:
    """Return what a consumer stores averages with."""
    return make_store()


@pytest.fixture
def product(first_note: None, tmp_path: Path) -> Iterator[Product]:
    """Yield the product's processes, of which the test starts the stream's server."""
    product = Product(tmp_path)
    yield product
    product.close()


@pytest.fixture
def listen(product: Product) -> Iterator[Listen]:
    """Yield a function that opens a stream; the server is started for it."""
    opened: list[Listener] = []

    def open_stream(query: str, **headers: str) -> Listener:
        if not opened:
            product.start("stream")
            wait_until(lambda: product.is_healthy("stream"), timeout_s=30, what="the stream's server")
        address = f"http://{product.stream_address}/prices/stream?{query}"
        opened.append(Listener(address, {name.replace("_", "-"): value for name, value in headers.items()}))
        return opened[-1]

    yield open_stream
    for listener in opened:
        listener.close()
