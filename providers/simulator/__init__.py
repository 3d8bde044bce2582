"""A local server that answers as Finnhub and Alpha Vantage do, and misbehaves on demand. It needs no key."""
