"""The tables of the service, a module for each."""

from prices.models.api_client import ApiClient, ApiKey, Scope
from prices.models.beat_term import BeatTerm
from prices.models.clock_difference import ClockDifference
from prices.models.dead_letter import DeadLetter
from prices.models.idempotency_key import IdempotencyKey
from prices.models.poll_gap import PollGap
from prices.models.poll_job import JobStatus, PollJob
from prices.models.poll_run import PollRun, RunState
from prices.models.price_bar import BarInterval, BarProgress, PriceBar
from prices.models.price_point import Precision, PricePoint
from prices.models.raw_market_data import Outcome, RawMarketData
from prices.models.symbol_average import AverageBatch, SymbolAverage

__all__ = [
    "ApiClient",
    "ApiKey",
    "AverageBatch",
    "BarInterval",
    "BarProgress",
    "BeatTerm",
    "ClockDifference",
    "DeadLetter",
    "IdempotencyKey",
    "JobStatus",
    "Outcome",
    "PollGap",
    "PollJob",
    "PollRun",
    "Precision",
    "PriceBar",
    "PricePoint",
    "RawMarketData",
    "RunState",
    "Scope",
    "SymbolAverage",
]
