"""Benchmarks: `python -m bench NAME` prints a table, with ratios that were measured in the same run."""
