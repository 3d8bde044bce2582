"""The tables whose rows are read as they were received."""

from dataclasses import dataclass, replace

from prices.history.columns import Column, Kind


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table with a row for each price: its name, its key by time, the columns of an answer.

    `received_at` is the column of the time of receipt; where there is none, the time in the key is it, to the
    millisecond. `version` is the SQL of a text that is another one once what the columns tell has changed.
    """

    name: str
    key: str
    columns: tuple[Column, ...]
    received_at: str | None = None
    # The transaction that wrote the row as it is, by whatever statement.
    version: str = "row.written_by::text"


POINTS = Table(
    "price_points",
    "id",
    (
        Column("event_id", "row.id", Kind.WORD),
        Column("symbol", "row.symbol", Kind.TEXT),
        Column("provider", "row.provider", Kind.WORD),
        Column("price", "row.price", Kind.PRICE),
        Column("currency", "row.currency", Kind.TEXT),
        Column("observed_at", "row.observed_at", Kind.TIME),
        Column("precision", "row.precision", Kind.WORD),
        Column("received_at", "row.received_at", Kind.TIME),
        Column("raw_response_id", "row.raw", Kind.WORD),
    ),
    received_at="received_at",
)
_INPUTS = """
SELECT '[' || string_agg('{"event_id":"' || input.event_id || '","price":' || input.price || '}', ','
                         ORDER BY input.event_id DESC) || ']'
FROM (
    SELECT event_id, price FROM symbol_averages AS input
    WHERE input.symbol = row.symbol AND coalesce(input.currency, '') = coalesce(row.currency, '')
      AND input.event_id <= row.event_id
    ORDER BY input.event_id DESC LIMIT row.window_size
) AS input
"""
AVERAGES = Table(
    "symbol_averages",
    "event_id",
    (
        Column("event_id", "row.event_id", Kind.WORD),
        Column("symbol", "row.symbol", Kind.TEXT),
        Column("price", "row.price", Kind.PRICE),
        Column("currency", "row.currency", Kind.TEXT),
        Column("average", "row.average", Kind.PRICE),
        Column("window_size", "row.window_size", Kind.COUNT),
        Column("provider", "row.provider", Kind.WORD),
        Column("observed_at", "row.observed_at", Kind.TIME),
        Column("created_at", "row.created_at", Kind.TIME),
    ),
)
# With the points of each window, the newest first.
AVERAGES_WITH_INPUTS = replace(
    AVERAGES,
    columns=(*AVERAGES.columns, Column("inputs", f"({_INPUTS})", Kind.JSON)),
    version=f"{AVERAGES.version} || ({_INPUTS})",
)
