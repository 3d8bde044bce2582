"""The README's commands are run, and what it says they answer is compared with what they do."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands

from tests.product import Product
from tests.waiting import wait_until

ROOT = Path(settings.BASE_DIR)
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```console\n\$ (.+)\n(.+)\n```", README)
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# What differs from run to run: ids, times, prices.
CHANGING = {
    UUID: "<uuid>",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z": "<time>",
    r'"price":[\d.]+': '"price":<price>',
}


def mask(text: str) -> str:
    for pattern, name in CHANGING.items():
        text = re.sub(pattern, name, text)
    return text.strip()


@pytest.fixture
def product(transactional_db: None, topic: str, tmp_path: Path) -> Iterator[Product]:
    running = Product(tmp_path)
    yield running
    running.close()


def test_readme_calls_answer_what_it_says(product: Product) -> None:
    product.start("web")
    wait_until(lambda: product.is_healthy("web"))
    assert len(EXAMPLES) == 4
    job_id = ""
    for command, expected in EXAMPLES:
        told = command.replace("127.0.0.1:8000", product.address)
        if "/prices/stop" in told:
            told = re.sub(UUID, job_id, told)
        answer = subprocess.run(told, shell=True, capture_output=True, text=True, check=True).stdout
        assert mask(answer) == mask(expected)
        found = re.search(UUID, answer)
        job_id = found[0] if found else job_id


def test_readme_names_every_command_of_the_service() -> None:
    commands = {name for name, app in get_commands().items() if app in {"marketdata", "prices", "consumers"}}
    # Django's own, which waits for locks in another way here.
    commands.remove("migrate")
    assert commands
    assert [name for name in commands if f"| `{name}" not in README] == []


def test_readme_names_every_make_target_it_speaks_of() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([\w-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_readme_names_every_table() -> None:
    tables = re.findall(
        r'db_table = "(\w+)"', "".join(p.read_text() for p in (ROOT / "prices/models").glob("*.py"))
    )
    assert "poll_jobs" in tables
    assert [table for table in tables if f"`{table}`" not in README] == []
