"""What was logged in a test."""

from collections import Counter

import pytest


def events_logged(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """Return how often each event was logged, by its name."""
    return Counter(record.msg["event"] for record in caplog.records if isinstance(record.msg, dict))
