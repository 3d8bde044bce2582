"""What docs/api.md says is what the service answers."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.product import Product
from tests.stored_prices import store_prices
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
PAGE = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text()
KEYS = re.search(r"## Keys\n.+?(?=\n## )", PAGE, re.DOTALL)[0]  # type: ignore[index]
_EXAMPLE = re.compile(r"^\$ (.+)\n((?:(?!\$ |```).*\n)+)", re.MULTILINE)
EXAMPLES = _EXAMPLE.findall(PAGE.replace(KEYS, ""))
KEY_EXAMPLES = _EXAMPLE.findall(KEYS)
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
CHANGING = {
    UUID: "<uuid>",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z": "<time>",
    r'"(age_seconds|latency_ms)":[\d.]+': r'"\1":<number>',
    r"127\.0\.0\.1:\d+": "<address>",
    r"\d{4}-\d\d-\d\d \d\d:\d\d UTC": "<time>",
    r";t=\d+": ";t=<number>",
}


def mask(text: str) -> str:
    for pattern, name in CHANGING.items():
        text = re.sub(pattern, name, text)
    return text.replace("\r\n", "\n").strip()


@pytest.fixture
def product(partitions: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path, LATEST_REUSE_S="3600")
    try:
        running.start("web")
        wait_until(lambda: running.is_healthy("web"), what="web answers")
        store_prices()
        yield running
    finally:
        running.close()


def test_calls_answer_what_the_page_says(product: Product) -> None:
    # An id of the page, and what it is here.
    known: dict[str, str] = {}
    assert len(EXAMPLES) > 20
    for command, expected in EXAMPLES:
        told = command.replace("127.0.0.1:8000", product.address)
        for of_page, here in known.items():
            told = told.replace(of_page, here)
        answer = subprocess.run(told, shell=True, capture_output=True, text=True, check=True).stdout
        assert mask(answer) == mask(expected), command
        known.update(zip(re.findall(UUID, expected), re.findall(UUID, answer), strict=True))


def test_keys_open_what_the_page_says(partitions: None, topic: str, tmp_path: Path) -> None:
    (command, told), *calls = KEY_EXAMPLES
    product = Product(tmp_path, API_AUTH="keys")
    try:
        product.start("web")
        wait_until(lambda: product.is_healthy("web"), what="web answers")
        words = shlex.split(command.removeprefix("KEY=$(.venv/bin/python manage.py ").removesuffix(")"))
        making = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=settings.BASE_DIR,
            env=os.environ | {"API_AUTH": "keys", "DATABASE_URL": product.database_url},
            capture_output=True,
            text=True,
            check=True,
        )
        # Behind the line of its log.
        assert mask(making.stderr.splitlines()[-1]) == mask(told)
        for call, expected in calls:
            told = call.replace("127.0.0.1:8000", product.address).replace("$KEY", making.stdout.strip())
            answer = subprocess.run(told, shell=True, capture_output=True, text=True, check=True).stdout
            assert mask(answer) == mask(expected), call
    finally:
        product.close()


def test_pandas_reads_history_as_the_page_says(product: Product) -> None:
    (program,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    told = program.replace("127.0.0.1:8000", product.address)
    shown = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert re.search(r"count +5\.0", shown)
    assert re.search(r"max +102\.5", shown)


def test_answers_of_the_page_are_json_or_csv() -> None:
    for command, expected in EXAMPLES:
        if "format=csv" not in command and "http_code" not in command:
            json.loads(expected)
