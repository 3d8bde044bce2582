"""What is imported and made when a process starts, so that its first caller does not wait for it."""

import gc
import importlib
import threading
from collections.abc import Collection
from datetime import UTC, datetime

from providers.adapters.alpha_vantage import AlphaVantage
from providers.adapters.simulated import Simulated
from providers.adapters.yahoo.adapter import Yahoo
from providers.markets.hours import day_close


def warm_up(providers: Collection[str]) -> None:
    """Import and make what asking these providers takes: seconds, and up to 100 MB."""
    if set(providers) - {Simulated.name}:
        # Imports the calendars of the markets, which say when a price is fresh, and makes the one asked most.
        now = datetime.now(UTC)
        day_close("AAPL", provider=AlphaVantage.name, day=now.date(), received_at=now)
    if Yahoo.name in providers:
        importlib.import_module("providers.adapters.yahoo.session")


def warm_up_in_background(providers: Collection[str]) -> threading.Thread:
    """Do so in a thread; whoever needs one of the modules meanwhile waits for it."""
    thread = threading.Thread(target=_warm_up_for_good, args=(providers,), name="warm-up", daemon=True)
    thread.start()
    return thread


def _warm_up_for_good(providers: Collection[str]) -> None:
    warm_up(providers)
    # What is there stays. To look through all of it for garbage stopped the process for 0.1 s each second.
    gc.collect()
    gc.freeze()
