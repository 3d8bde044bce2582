import json
import logging
import subprocess
import sys

import pytest
from django.conf import settings

FAIL = """
import logging, django
django.setup()
import structlog
def fail(key):
    raise RuntimeError("it failed")
structlog.get_logger("prices").info("job.created", job_id=5)
extra = {"request": "GET /x?token=canary", "status_code": 404}
logging.getLogger("django.request").warning("Not Found: %s", "/x", extra=extra)
try:
    fail("canary-key")
except RuntimeError:
    logging.getLogger("celery").exception("task failed")
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_logs_tell_events_and_hide_local_variables_and_queries(log_format: str) -> None:
    command = ["env", f"LOG_FORMAT={log_format}", "DJANGO_SETTINGS_MODULE=marketdata.settings"]
    result = subprocess.run(
        [*command, sys.executable, "-c", FAIL],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    for text in ("job.created", "Not Found: /x", "task failed", "RuntimeError", "it failed"):
        assert text in result.stderr
    assert "canary" not in result.stderr
    if log_format == "json":
        events = [json.loads(line) for line in result.stderr.splitlines()]
        assert (events[0]["event"], events[0]["job_id"], events[0]["level"]) == ("job.created", 5, "info")


def test_logs_of_the_http_library_are_not_debugged() -> None:
    assert logging.getLogger("urllib3").level == logging.WARNING
