"""One symbol: its prices and averages over time, and what each of them is made of."""
