"""No client of Kafka writes lines of its own to stderr, among what a person or a script reads there."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

CLIENTS = {"AdminClient", "Consumer", "Producer"}
FOLDERS = ("bench", "consumers", "dev", "docker", "marketdata", "prices", "providers", "tests")
# A broker that is away, and a message that is never sent.
TALKATIVE = """
from prices.publishing.kafka_clients import make_admin, make_consumer, make_producer
producer = make_producer({})
producer.produce("none", b"left behind")
producer.poll(0.3)
clients = [make_admin(), make_consumer({})]
for client in clients:
    try:
        client.list_topics(timeout=0.3)
    except Exception:
        pass
"""


def noisy_clients(path: Path) -> Iterator[str]:
    """Yield where a client is made whose log goes to stderr."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLIENTS:
            has_logger = any(keyword.arg == "logger" for keyword in node.keywords)
            if not has_logger and "log_level" not in ast.unparse(node):
                yield f"{path}:{node.lineno}"


def test_each_client_is_silent() -> None:
    files = [path for folder in FOLDERS for path in (settings.BASE_DIR / folder).rglob("*.py")]
    assert [each for path in files for each in noisy_clients(path)] == []


def test_clients_of_the_service_write_nothing_however_they_end() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TALKATIVE],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "marketdata.settings",
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout + ended.stderr == ""
