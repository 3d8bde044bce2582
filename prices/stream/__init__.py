"""GET /prices/stream: averages as they are stored, as server-sent events, of which none is lost."""
