"""Outages are told when they begin and when they end."""

import logging

import pytest

from prices.outage_log import Outage
from tests.logged import events_logged


def test_outage_is_logged_once_at_each_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage(began="part.away", ended="part.back")
    outage.end()
    for _ in range(3):
        outage.begin("no answer")
    outage.end()
    outage.end()
    assert events_logged(caplog) == {"part.away": 1, "part.back": 1}
    outage.begin("no answer")
    assert events_logged(caplog)["part.away"] == 2
