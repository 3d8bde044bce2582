"""The recorded answers of the real providers, read where they lie."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

from providers.base import RawAnswer

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "provider_responses"
PROVIDERS = {"alpha_vantage": "alpha_vantage", "finnhub": "finnhub", "yahoo": "yfinance"}
WEBSOCKET = 101


@dataclass(frozen=True)
class Recording:
    """One answer, and what a correct client concludes from it."""

    name: str
    meta: dict[str, Any]
    body: bytes

    @property
    def provider(self) -> str:
        return PROVIDERS[self.meta["provider"]]

    @property
    def expected(self) -> list[dict[str, Any]]:
        """One conclusion for each symbol."""
        expected = self.meta["expected"]
        items: list[dict[str, Any]] = expected["items"] if expected["kind"] == "batch" else [expected]
        return items

    @property
    def symbols(self) -> tuple[str, ...]:
        query = self.meta["request"]["query"]
        named = [item["symbol"] for item in self.expected if "symbol" in item]
        if "symbols" in query:
            return tuple(query["symbols"].split(","))
        last_part = unquote(self.meta["request"]["path"].rpartition("/")[2])
        return tuple(named or [query.get("symbol", last_part).upper()])

    @property
    def received_at(self) -> datetime:
        # A minute after the answer's own date, as if this client had asked at that time.
        date = self.meta["headers"].get("date")
        return (
            parsedate_to_datetime(date) + timedelta(minutes=1) if date else datetime(2026, 11, 23, tzinfo=UTC)
        )

    @property
    def answer(self) -> RawAnswer:
        request = self.meta["request"]
        return RawAnswer(
            provider=self.provider,
            symbols=self.symbols,
            url=f"https://{request['host']}{request['path']}?{urlencode(request['query'])}",
            status=self.meta["status"],
            headers=self.meta["headers"],
            body=self.body,
            received_at=self.received_at,
            latency_ms=12.5,
        )


def load_recordings() -> list[Recording]:
    """Return every recorded answer to a REST call; none where the folder is absent."""
    recordings = []
    for path in sorted(FOLDER.glob("*/*.meta.json")):
        meta = json.loads(path.read_text())
        if meta["status"] != WEBSOCKET:
            name = f"{path.parent.name}/{meta['body_file']}"
            recordings.append(
                Recording(name=name, meta=meta, body=(path.parent / meta["body_file"]).read_bytes())
            )
    return recordings
