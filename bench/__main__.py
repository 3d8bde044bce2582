"""The command line of the benchmarks."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.parts import running_parts


def main() -> int:
    """Run the benchmark that was asked for; give the exit code."""
    arguments = _parser().parse_args()
    with running_parts():
        _BENCHMARKS[arguments.name](arguments)
    return 0


# Imported only now: Django's settings are read from what the parts have put into the environment.
def _consumer(arguments: argparse.Namespace) -> None:
    from bench.consumer import Plan, run

    run(
        Plan(
            events=arguments.events,
            symbols=arguments.symbols,
            rounds=arguments.rounds,
            steady_s=arguments.steady,
        ),
        json_file=arguments.json,
    )


def _verify(arguments: argparse.Namespace) -> None:
    from bench.verify import Plan, run

    run(
        Plan(rows=arguments.rows, symbols=arguments.symbols, rounds=arguments.rounds),
        json_file=arguments.json,
    )


_BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {"consumer": _consumer, "verify": _verify}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    consumer = commands.add_parser("consumer", help="price events to averages, against COPY alone")
    consumer.add_argument("--events", type=int, default=1_000_000, help="how many (1,000,000)")
    consumer.add_argument("--symbols", type=int, default=500, help="of how many symbols (500)")
    consumer.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    consumer.add_argument("--steady", type=int, default=30, help="seconds at 1,000 events/s (30; 0: none)")
    verify = commands.add_parser("verify", help="verify_averages, against a join of the tables alone")
    verify.add_argument("--rows", type=int, default=1_000_000, help="how many in each table (1,000,000)")
    verify.add_argument("--symbols", type=int, default=500, help="of how many symbols (500)")
    verify.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    for command in (consumer, verify):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
