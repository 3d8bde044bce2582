"""A process that sends requests as fast as permits come. It starts with few imports."""

import random
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from django.conf import settings

from providers.base import Results
from providers.rate_limits.budget import SentTimes
from providers.rate_limits.permits import Granted, report_outcome, request_permit

HAMMERED_FOR_S = 2.0
NOTHING: Results = {}


def no_history(provider: str, seconds: float) -> SentTimes:
    return SentTimes(job=(), latest=())


def hammer(api_key: str, budget: str, together: Barrier, found: Connection) -> None:
    """Send requests as fast as permits come; what each one tells is when it reached the provider."""
    settings.FINNHUB_API_KEY = api_key
    settings.PROVIDER_BUDGETS = {"finnhub": budget}
    settings.PROVIDER_TIMEOUT_S = 10
    arrivals: list[float] = []
    chance = random.Random()
    together.wait(60)
    until = time.monotonic() + HAMMERED_FOR_S
    while time.monotonic() < until:
        permit = request_permit("finnhub", caller="job", load_history=no_history)
        if isinstance(permit, Granted):
            pass_time(chance.randrange(10))
            arrivals.append(time.time())
            pass_time(chance.randrange(10))
            report_outcome(permit, NOTHING, answer=None)
    found.send(arrivals)


def pass_time(milliseconds: int) -> None:
    until = time.monotonic() + milliseconds / 1000
    while time.monotonic() < until:
        pass
