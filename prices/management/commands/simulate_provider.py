"""manage.py simulate_provider: Finnhub, Alpha Vantage and Yahoo, misbehaving on demand."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from prices.management.examples import add_examples
from providers.simulator.faults import Faults, FaultsError, read_number
from providers.simulator.simulator import Simulator

_ENDING = {signal.SIGINT, signal.SIGTERM}
_FAULTS = Faults().as_dict()
_HELP = {
    "latency_s": "seconds until each answer begins",
    "jitter_s": "up to so many seconds more, by chance",
    "error_rate": "share of the requests that go wrong, 0 to 1",
    "error": "how they go wrong: 502, 503, html, malformed, truncated, reset, hang, any",
    "rate_limit": "requests that are answered, such as 60/1m or 1/1s,25/1d",
    "invalid_key": "refuse every key",
    "not_entitled": "say that the plan includes no symbol",
    "stale_s": "tell the price and the time of so many seconds ago",
    "outage": "close every connection without an answer",
}


class Command(BaseCommand):
    """Serve until Ctrl-C or SIGTERM."""

    help = (
        "Serves Finnhub, Alpha Vantage and Yahoo, simulated, on this machine until Ctrl-C. Any key is taken. "
        "Faults are given here, and changed while it runs at /_faults."
    )
    # It needs no database, Redis or Kafka.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the address, and each fault by the name that it has at /_faults."""
        add_examples(
            parser, "simulate_provider", "simulate_provider --port 8101 --latency-s 2 --error-rate 0.1"
        )
        parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
        parser.add_argument("--port", default="8100", help="port to serve on (default: %(default)s; 0: any)")
        for name, default in _FAULTS.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(default, bool):
                parser.add_argument(option, action="store_true", help=_HELP[name])
            else:
                parser.add_argument(option, metavar="X", help=f"{_HELP[name]} (default: {default})")

    def handle(self, *, host: str, port: str, **options: Any) -> None:
        """Serve and report; a port that is taken, or an option that cannot be used, is said in one line."""
        # Before the threads begin: they inherit it, and a signal waits until it is asked for.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            simulator = Simulator(host, _port(port), **_faults(options))
        except FaultsError as error:
            raise CommandError(str(error), returncode=2) from error
        except OSError as error:
            raise CommandError(f"{host}:{port} cannot be served on: {error.strerror}") from error
        with simulator:
            self.stdout.write(_introduction(simulator))
            self.stdout.flush()
            signal.sigwait(_ENDING)
        self.stdout.write("Stopped.")


def _port(text: str) -> int:
    if text.isdecimal() and text.isascii() and len(text) < 6 and int(text) < 65_536:
        return int(text)
    raise CommandError(f"--port must be a whole number from 0 to 65535, not {text!r}", returncode=2)


def _faults(options: dict[str, Any]) -> dict[str, object]:
    given = {name: options[name] for name in _FAULTS if options[name] is not None}
    # Text stays text where a text is wanted: the error 502 is one.
    return {
        name: value if isinstance(_FAULTS[name], str | bool) else read_number(value)
        for name, value in given.items()
    }


def _introduction(simulator: Simulator) -> str:
    return "\n".join(
        [
            f"Finnhub, Alpha Vantage and Yahoo are simulated at {simulator.url}. Let the service ask there:",
            f"  FINNHUB_BASE_URL={simulator.url} FINNHUB_API_KEY=any-key-will-do",
            f"  ALPHA_VANTAGE_BASE_URL={simulator.url} ALPHA_VANTAGE_API_KEY=any-key-will-do",
            f"  YAHOO_BASE_URL={simulator.url}",
            "Change faults, see them, and end them (of one provider alone: /_faults/finnhub):",
            f'  curl -X PATCH {simulator.faults_url} -d \'{{"error_rate": 0.5, "error": "hang"}}\'',
            f"  curl {simulator.faults_url}",
            f"  curl -X DELETE {simulator.faults_url}",
            "See which requests came (Ctrl-C ends the simulation):",
            f"  curl {simulator.requests_url}",
        ]
    )
