"""Bars: open, high, low and close of what a provider said, by its own times."""
