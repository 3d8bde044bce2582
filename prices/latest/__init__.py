"""The latest price of a symbol: stored, or fetched now."""
