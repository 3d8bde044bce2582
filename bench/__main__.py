"""The command line of the benchmarks."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.parts import running_parts


def main() -> int:
    """Run the benchmark that was asked for; return the exit code."""
    arguments = _parser().parse_args()
    with running_parts() as parts:
        return _BENCHMARKS[arguments.name](arguments, parts) or 0


# Imported only now: Django's settings are read from what the parts have put into the environment.
def _consumer(arguments: argparse.Namespace, _parts: Mapping[str, int]) -> None:
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


def _verify(arguments: argparse.Namespace, _parts: Mapping[str, int]) -> None:
    from bench.verify import Plan, run

    run(
        Plan(rows=arguments.rows, symbols=arguments.symbols, rounds=arguments.rounds),
        json_file=arguments.json,
    )


def _scheduler(arguments: argparse.Namespace, parts: Mapping[str, int]) -> None:
    from bench.scheduler import Plan, run

    run(
        Plan(
            cases=arguments.cases,
            seconds=arguments.seconds,
            warm_up_s=arguments.warm_up,
            pollers=arguments.pollers,
            jobs=arguments.jobs,
            without_stock=arguments.without_stock,
        ),
        parts=parts,
        json_file=arguments.json,
    )


def _growth(arguments: argparse.Namespace, _parts: Mapping[str, int]) -> int:
    from bench.growth import Plan, run

    plan = Plan(
        points=arguments.points, days=arguments.days, symbols=arguments.symbols, rounds=arguments.rounds
    )
    return run(plan, json_file=arguments.json)


def _api(arguments: argparse.Namespace, _parts: Mapping[str, int]) -> int:
    from bench.api import Plan, run

    plan = Plan(
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        symbols=arguments.symbols,
        polls=arguments.polls,
        cases=arguments.cases,
    )
    return run(plan, json_file=arguments.json)


def _stream(arguments: argparse.Namespace, parts: Mapping[str, int]) -> int:
    from bench.stream import Plan, run

    plan = Plan(
        clients=arguments.clients,
        symbols=arguments.symbols,
        rate=arguments.rate,
        seconds=arguments.seconds,
    )
    return run(plan, parts=parts, json_file=arguments.json)


def _pages(arguments: argparse.Namespace, _parts: Mapping[str, int]) -> int:
    from bench.pages import Plan, run

    plan = Plan(
        symbols=arguments.symbols,
        rate=arguments.rate,
        seconds=arguments.seconds,
        points=arguments.points,
    )
    return run(plan, json_file=arguments.json)


_BENCHMARKS: dict[str, Callable[[argparse.Namespace, Mapping[str, int]], int | None]] = {
    "consumer": _consumer,
    "verify": _verify,
    "scheduler": _scheduler,
    "growth": _growth,
    "api": _api,
    "stream": _stream,
    "pages": _pages,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    consumer = commands.add_parser("consumer", help="price events to averages, against COPY alone")
    consumer.add_argument("--events", type=int, default=1_000_000, help="how many (1,000,000)")
    consumer.add_argument("--symbols", type=int, default=2_000, help="of how many (2,000)")
    consumer.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    consumer.add_argument("--steady", type=int, default=30, help="seconds at 1,000 events/s (30; 0: none)")
    verify = commands.add_parser("verify", help="verify_averages, against a join of the tables alone")
    verify.add_argument("--rows", type=int, default=1_000_000, help="how many in each table (1,000,000)")
    verify.add_argument("--symbols", type=int, default=500, help="of how many symbols (500)")
    verify.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    scheduler = commands.add_parser("scheduler", help="beat beside the stock one, through the whole path")
    cases = ("even", "mixed", "many")
    scheduler.add_argument("--cases", nargs="+", choices=cases, default=cases, help="which (all)")
    scheduler.add_argument("--seconds", type=int, help="measured in each case (30, 60, 60)")
    scheduler.add_argument("--warm-up", type=int, default=10, help="seconds before that (10)")
    scheduler.add_argument("--pollers", type=int, default=1, help="processes that poll (1)")
    scheduler.add_argument("--jobs", type=int, help="how many in each case (its own number)")
    scheduler.add_argument("--without-stock", action="store_true", help="measure this scheduler alone")
    growth = commands.add_parser("growth", help="an empty service beside one with years of rows")
    growth.add_argument("--points", type=int, default=10_000_000, help="how many (10,000,000)")
    growth.add_argument("--days", type=int, default=400, help="over how many days (400)")
    growth.add_argument("--symbols", type=int, default=500, help="of how many symbols (500)")
    growth.add_argument("--rounds", type=int, default=200, help="how often each is measured (200)")
    api = commands.add_parser("api", help="REST calls beside a bare Django view that reads Redis")
    calls = ("latest", "batch", "jobs", "history", "averages", "unchanged")
    api.add_argument("--cases", nargs="+", choices=calls, default=calls, help="which (all)")
    api.add_argument("--seconds", type=int, default=5, help="of load in each round (5)")
    api.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    api.add_argument("--symbols", type=int, default=500, help="of how many symbols (500)")
    api.add_argument("--polls", type=int, default=800, help="jobs polled each second, at last (800; 0: none)")
    stream = commands.add_parser("stream", help="the stream's server with thousands of clients")
    stream.add_argument("--clients", type=int, default=2_000, help="how many (2,000)")
    stream.add_argument("--symbols", type=int, default=500, help="of how many, one for each client (500)")
    stream.add_argument("--rate", type=int, default=1_000, help="events stored each second (1,000)")
    stream.add_argument("--seconds", type=int, default=30, help="measured (30)")
    pages = commands.add_parser("pages", help="the pages in a browser, while prices come")
    pages.add_argument("--symbols", type=int, default=500, help="how many rows (500)")
    pages.add_argument("--rate", type=int, default=100, help="events stored each second (100)")
    pages.add_argument("--seconds", type=int, default=60, help="measured (60)")
    pages.add_argument("--points", type=int, default=50_000, help="of a chart (50,000)")
    for command in (consumer, verify, scheduler, growth, api, stream, pages):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
