"""The forms of jobs: read as the REST calls read their bodies, with the same rules and the same words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from prices.api.problems import InvalidRequestError, Problem
from prices.api.serializers import Body, ChangeRequest, PollRequest, validated
from prices.models import PollJob
from prices.symbols import normalise_symbol

_BETWEEN = re.compile(r"[\s,;]+")
_DIGITS = re.compile("-?[0-9]{1,19}")


@dataclass(slots=True)
class JobForm:
    """What a form holds, as it was written, and by field what is wrong with it; `other`: of no field."""

    symbols: str = ""
    interval: str = "60"
    provider: str = ""
    market_hours: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    other: str = ""

    @classmethod
    def sent(cls, data: QueryDict) -> "JobForm":
        """Return the form as a browser sends it."""
        symbols, interval, provider = (
            data.get(name, "").strip() for name in ("symbols", "interval", "provider")
        )
        return cls(symbols, interval, provider, market_hours="market_hours" in data)

    @classmethod
    def of(cls, job: PollJob) -> "JobForm":
        """Return the form filled with what a job is now."""
        return cls(", ".join(job.symbols), str(job.interval), job.provider or "", job.market_hours)

    def read_new(self) -> dict[str, Any] | None:
        """Return what a new job is to be; None where something is wrong, which `errors` says."""
        return self._read(PollRequest, self._values() | {"provider": self.provider or None})

    def read_change(self) -> dict[str, Any] | None:
        """Return what a job is to become; None where something is wrong, which `errors` says."""
        return self._read(ChangeRequest, self._values())

    def take(self, problem: Problem) -> None:
        """Show what a service refused, beside its field where it is of one."""
        faults = problem.more.get("errors", [])
        for fault in faults:
            self._add(fault)
        self.other = "" if faults else problem.detail

    def _values(self) -> dict[str, Any]:
        is_number = _DIGITS.fullmatch(self.interval)
        return {
            "symbols": [each for each in _BETWEEN.split(self.symbols) if each],
            "interval": int(self.interval) if is_number else self.interval,
            "market_hours": self.market_hours,
        }

    def _read(self, body: type[Body], values: Mapping[str, Any]) -> dict[str, Any] | None:
        wrong = next((each for each in values["symbols"] if normalise_symbol(each) is None), None)
        if wrong is not None:
            self.errors["symbols"] = f"{wrong[:60]} is not a symbol."
        elif not values["symbols"]:
            self.errors["symbols"] = "Name one symbol or more."
        try:
            found = validated(body, values)
        except InvalidRequestError as error:
            for fault in error.errors:
                self._add(fault)
        return None if self.errors else found

    def _add(self, fault: Mapping[str, str]) -> None:
        words = f"The {fault['field'].replace('_', ' ')} {fault['problem']}; allowed: {fault['allowed']}."
        self.errors.setdefault(fault["field"], words)
