import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prices.symbols import is_simulated, is_symbol, normalise_symbol, normalise_symbols, unique_symbols


@pytest.mark.parametrize(
    "text",
    [
        "AAPL",
        "BRK.B",
        "BRK-B",
        "^GSPC",
        "EURUSD=X",
        "M&M.NS",
        "USD/JPY",
        "BINANCE:BTCUSDT",
        "A_B",
        "0700.HK",
        "A" * 32,
    ],
)
def test_symbol_in_alphabet_is_kept(text: str) -> None:
    assert normalise_symbol(text) == text


def test_symbol_lower_case_is_upper_cased() -> None:
    assert normalise_symbol("brk.b") == "BRK.B"


@pytest.mark.parametrize(
    "text", ["", " ", "AAPL ", "A" * 33, "A\0", "AÄ", "\u017f", "\ufb01", "AAPL\n", "A,B", "A+B", "٣", "A%B"]
)
def test_symbol_outside_alphabet_is_none(text: str) -> None:
    assert normalise_symbol(text) is None


@example(["a B"])
@example(["A", " ", "B"])
@example(["A", ""])
@given(st.lists(st.text("aB1. ,\u017f\n", max_size=3) | st.text(max_size=40), max_size=4))
def test_several_are_normalised_as_each_alone(texts: list[str]) -> None:
    alone = [normalise_symbol(text) for text in texts]
    assert normalise_symbols(texts) == (None if None in alone or not texts else alone)


@given(st.text(max_size=40))
def test_symbol_normalised_is_a_symbol_and_stays(text: str) -> None:
    symbol = normalise_symbol(text)
    assert symbol is None or (is_symbol(symbol) and normalise_symbol(symbol) == symbol)


def test_unique_symbols_keeps_the_first_order() -> None:
    assert unique_symbols(["B", "A", "B", "C", "A"]) == ["B", "A", "C"]


def test_simulated_is_told_by_its_prefix() -> None:
    assert is_simulated("SIM-A")
    assert not is_simulated("SIMO")
