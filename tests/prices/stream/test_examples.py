"""What docs/stream.md shows goes on where it was, whatever happens to the server."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.consumers.samples import EventStore, event
from tests.product import Product
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
PAGE = (Path(settings.BASE_DIR) / "docs" / "stream.md").read_text()
INTERPRETERS = {"sh": ["/bin/sh", "-c"], "python": [sys.executable, "-c"]}


@pytest.mark.parametrize("language", INTERPRETERS)
def test_example_misses_nothing_while_the_server_is_killed(
    product: Product, store: EventStore, tmp_path: Path, language: str
) -> None:
    product.start("stream")
    wait_until(lambda: product.is_healthy("stream"))
    (code,) = re.findall(rf"```{language}\n(.+?)```", PAGE, re.DOTALL)
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        example = subprocess.Popen(
            [*INTERPRETERS[language], code.replace("127.0.0.1:8001", product.stream_address)],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: printed.stat().st_size, what="the snapshot")
        store.write([event(number, symbol="SIM-ACME", price=f"{number}1.5") for number in range(1, 4)])
        wait_until(lambda: "31.5" in printed.read_text())
        product.kill("stream")
        store.write([event(number, symbol="SIM-ACME", price=f"{number}1.5") for number in range(4, 7)])
        product.start("stream")
        wait_until(lambda: "61.5" in printed.read_text(), what=printed.read_text())
    finally:
        os.killpg(example.pid, signal.SIGKILL)
        example.wait()
    # Not those that are averages.
    prices = re.findall(r'(?:"price":|price )([1-6]1\.5)', printed.read_text())
    assert prices == [f"{number}1.5" for number in range(1, 7)]
