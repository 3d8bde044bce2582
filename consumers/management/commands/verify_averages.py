"""Are the averages right?"""

from argparse import ArgumentParser
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from consumers.verify import Difference, Facts, Verdict, Verification, verify_averages
from prices.symbols import SYMBOL_ALPHABET, normalise_symbol

# For the user, in few words; consumers/verify.py has them in full.
MEANINGS = {
    Verdict.RIGHT: "the stored row agrees with its price and its window",
    Verdict.WRONG: "the stored price, symbol, window or average differs",
    Verdict.MISSING: "the price was published and consumed, but there is no row",
    Verdict.PENDING: "the price is still on its way: not published, or perhaps not consumed yet",
    Verdict.FOREIGN: "a row from an event of another program; no error",
    Verdict.UNVERIFIABLE: "prices in its window are no longer kept",
}

_encoder = msgspec.json.Encoder(decimal_format="number")


class Command(BaseCommand):
    help = (
        "Compare each stored average with the mean of its point's price and the four before it. "
        + "".join(f"{verdict}: {meaning}. " for verdict, meaning in MEANINGS.items())
        + "Exit 0: none is wrong or missing, 1: some are (the first are named), 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a symbol and the form of the answer."""
        parser.add_argument("--symbol", help="Look at this symbol alone.")
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")

    def handle(self, *, symbol: str | None, json: bool, **options: Any) -> None:
        """Verify and report."""
        stored_form = normalise_symbol(symbol) if symbol is not None else None
        if symbol is not None and stored_form is None:
            raise CommandError(f"--symbol takes up to 32 of: {SYMBOL_ALPHABET}.", returncode=2)
        verification = verify_averages(symbol=stored_form)
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
    return f"average {average} of {facts.window_size}, price {facts.price:f} ({facts.symbol})"
