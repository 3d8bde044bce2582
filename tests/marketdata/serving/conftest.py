"""A process that serves, for what is told by real answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product
from tests.waiting import wait_until


@pytest.fixture
def web(partitions: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    """Yield a web server on the database of the test; its log is in JSON."""
    product = Product(tmp_path, LOG_FORMAT="json")
    product.start("web")
    try:
        wait_until(lambda: product.is_healthy("web"), what="web is ready")
        yield product
    finally:
        product.close()
