"""The engine by itself: how long answers wait."""

from providers.simulator.answers import Ask
from providers.simulator.engine import Engine

ASK = Ask(call="quote", symbol="IBM", key="k")


def delays(engine: Engine) -> list[float]:
    return [engine.answer("finnhub", ASK)[1] for _ in range(100)]


def test_answers_wait_for_the_latency_and_a_part_of_the_jitter() -> None:
    engine = Engine()
    assert set(delays(engine)) == {0}
    engine.change({"latency_s": 10})
    assert set(delays(engine)) == {10}
    engine.change({"jitter_s": 5})
    spread = delays(engine)
    assert 10 <= min(spread) < 12
    assert 13 < max(spread) <= 15
