"""Are the averages right?"""

from argparse import ArgumentParser
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from consumers.management.arguments import parse_since, parse_symbol
from consumers.management.progress import shown_progress
from consumers.repair.verify import Difference, Facts, Verdict, Verification, verify_averages
from prices.management.examples import add_examples

# For the user, in few words; consumers/repair/verify.py has them in full.
MEANINGS = {
    Verdict.RIGHT: "the stored row agrees with its price and its window",
    Verdict.WRONG: "the stored price, symbol, window or average differs, or leaves out a missing one",
    Verdict.MISSING: "the price was published and consumed, but there is no row",
    Verdict.PENDING: "the price is still on its way: not published, or perhaps not consumed yet",
    Verdict.FOREIGN: "a row from an event of another program; no error",
    Verdict.UNVERIFIABLE: "prices in its window are no longer kept",
}

EXAMPLES = (
    "verify_averages",
    "verify_averages --symbol AAPL --since 2026-11-23T09:30:00Z",
)

_encoder = msgspec.json.Encoder(decimal_format="number")


class Command(BaseCommand):
    help = (
        "Compare each stored average with the mean of its point's price and the four before it. "
        + "".join(f"{verdict}: {meaning}. " for verdict, meaning in MEANINGS.items())
        + "Exit 0: none is wrong or missing, 1: some are (the first are named), 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a symbol, a time and the form of the answer."""
        add_examples(parser, *EXAMPLES)
        parser.add_argument("--symbol", help="Look at this symbol alone.")
        parser.add_argument(
            "--since", metavar="TIME", help="Only points made from this time on, in ISO 8601."
        )
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")

    def handle(self, *, symbol: str | None, since: str | None, json: bool, **options: Any) -> None:
        """Verify and report."""
        with shown_progress() as show:
            verification = verify_averages(
                symbol=parse_symbol(symbol),
                since=parse_since(since),
                on_progress=lambda done: show(done.symbols_done, done.symbols, str(done)),
            )
        self.stdout.write(_as_json(verification) if json else _as_text(verification))
        if verification.failed:
            raise CommandError(f"{verification.failed} averages are wrong or missing.")


def _as_json(verification: Verification) -> str:
    rest = {"differences": verification.differences, "note": verification.note}
    return _encoder.encode(verification.counts | rest).decode()


def _as_text(verification: Verification) -> str:
    lines = [
        f"{verdict:<13}{count:>12,}  {MEANINGS[verdict]}" for verdict, count in verification.counts.items()
    ]
    if not any(verification.counts.values()):
        lines += ["", "No stored price or average was there to compare."]
    if verification.note:
        lines += ["", verification.note]
    if verification.differences:
        lines += ["", *_table(verification.differences)]
        left = verification.failed - len(verification.differences)
        if left:
            lines.append(f"and {left:,} more")
    return "\n".join(lines)


def _table(differences: list[Difference]) -> list[str]:
    rows = [("verdict", "symbol", "event_id", "stored", "expected")]
    for difference in differences:
        stored, expected = _in_words(difference.stored), _in_words(difference.expected)
        rows.append((difference.verdict, difference.symbol, str(difference.event_id), stored, expected))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _in_words(facts: Facts | None) -> str:
    if facts is None:
        return "-"
    average = "none" if facts.average is None else f"{facts.average:f}"
    currency = facts.currency or "without a currency"
    return f"average {average} of {facts.window_size}, price {facts.price:f} {currency} ({facts.symbol})"
