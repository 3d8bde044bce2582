"""Bars in SQL.

A sample is a time of the provider and its price: what was received last of that time, as a provider may
correct itself. A price without a time counts at its receipt, if the market was open then. Prices of a day are
samples of the day alone. A price whose time lies over two minutes ahead of its id's is no sample: ids are
made by PostgreSQL's clock, so one of the clocks was wrong.

minute   of samples
hour     of the minutes in it
day      of the minutes from its begin to the next day's, and of the prices of that day
"""

# Each clock may differ by a minute (CLOCKS_AGREE_WITHIN). Ids that have no time are taken as they are.
_TIME_AGREES = "({at} <= uuid_extract_timestamp({id}) + interval '2 minutes') IS NOT FALSE"
_RECEIPT_AGREES = "(uuid_extract_timestamp(id) <= received_at + interval '2 minutes') IS NOT FALSE"

# Of these points since the last run: the minutes, and of prices of a day the times, of which a sample is new
# or another one. Most repeat the one before, as on a weekend.
CHANGED = f"""
SELECT DISTINCT point.symbol, point.provider, point.precision = 'day' AS of_day,
       date_trunc('minute', coalesce(point.observed_at, point.received_at)) AS minute
FROM price_points AS point
WHERE {{where}} AND NOT EXISTS (
    SELECT FROM (
        SELECT before.price, before.currency, before.precision FROM price_points AS before
        WHERE before.symbol = point.symbol AND before.provider = point.provider
          AND before.observed_at = point.observed_at AND before.id < point.id
          AND {_TIME_AGREES.format(at="before.observed_at", id="before.id")}
        ORDER BY before.id DESC LIMIT 1
    ) AS before
    WHERE before.price = point.price AND before.currency IS NOT DISTINCT FROM point.currency
      AND before.precision = point.precision
)
"""  # noqa: S608 - no outside text
OF_TRANSACTIONS = "point.tx >= %(position)s AND point.tx < %(horizon)s"
OF_IDS = "point.id >= %(first)s AND point.id < %(end)s"

# `lowest` and `highest` bound the partitions.
MINUTES = f"""
WITH wanted AS (
    SELECT * FROM unnest(%(symbols)s::text[], %(providers)s::text[], %(starts)s::timestamptz[],
                         %(lowest)s::uuid[], %(highest)s::uuid[], %(open)s::boolean[])
        AS wanted (symbol, provider, start, lowest, highest, is_open)
), samples AS (
    SELECT DISTINCT ON (wanted.symbol, wanted.provider, start, currency, at)
           wanted.symbol, wanted.provider, start, coalesce(currency, '') AS currency, at, price
    FROM wanted CROSS JOIN LATERAL (
        SELECT id, currency, observed_at AS at, price FROM price_points AS point
        WHERE point.symbol = wanted.symbol AND point.provider = wanted.provider AND precision = 'second'
          AND observed_at >= start AND observed_at < start + interval '1 minute' AND id >= lowest
          AND {_TIME_AGREES.format(at="observed_at", id="id")}
        UNION ALL
        SELECT id, currency, received_at, price FROM price_points AS point
        WHERE point.symbol = wanted.symbol AND point.provider = wanted.provider AND precision = 'unknown'
          AND is_open AND id >= lowest AND id < highest
          AND received_at >= start AND received_at < start + interval '1 minute'
          AND {_TIME_AGREES.format(at="received_at", id="id")} AND {_RECEIPT_AGREES}
    ) AS point
    ORDER BY wanted.symbol, wanted.provider, start, currency, at, id DESC
)
SELECT symbol, '1m' AS interval, start, provider, currency,
       (array_agg(price ORDER BY at))[1] AS open, max(price) AS high, min(price) AS low,
       (array_agg(price ORDER BY at DESC))[1] AS close, count(*)::integer AS samples,
       min(at) AS first_observed_at, max(at) AS last_observed_at
FROM samples GROUP BY symbol, provider, start, currency
"""  # noqa: S608 - no outside text
_JOINED = """
       (array_agg(open ORDER BY first_observed_at))[1] AS open, max(high) AS high, min(low) AS low,
       (array_agg(close ORDER BY last_observed_at DESC))[1] AS close, sum(samples)::integer AS samples,
       min(first_observed_at) AS first_observed_at, max(last_observed_at) AS last_observed_at
"""
# Of {minutes}: the table, or the table with what is newer.
HOURS = f"""
WITH wanted AS (
    SELECT * FROM unnest(%(symbols)s::text[], %(providers)s::text[], %(starts)s::timestamptz[],
                         %(ends)s::timestamptz[]) AS wanted (symbol, provider, begin, finish)
)
SELECT minute.symbol, %(interval)s AS interval, begin AS start, minute.provider, minute.currency, {_JOINED}
FROM wanted CROSS JOIN LATERAL (
    SELECT * FROM {{minutes}} AS bar
    WHERE bar.symbol = wanted.symbol AND bar.interval = '1m' AND bar.provider = wanted.provider
      AND bar.start >= begin AND bar.start < finish
) AS minute
GROUP BY minute.symbol, minute.provider, minute.currency, begin
"""  # noqa: S608 - no outside text
DAYS = f"""
WITH wanted AS (
    SELECT * FROM unnest(%(symbols)s::text[], %(providers)s::text[], %(starts)s::timestamptz[],
                         %(ends)s::timestamptz[], %(days)s::timestamptz[], %(lowest)s::uuid[])
        AS wanted (symbol, provider, begin, finish, day, lowest)
), parts AS (
    SELECT day, minute.symbol, minute.provider, minute.currency, open, high, low, close, samples,
           first_observed_at, last_observed_at
    FROM wanted CROSS JOIN LATERAL (
        SELECT * FROM {{minutes}} AS bar
        WHERE bar.symbol = wanted.symbol AND bar.interval = '1m' AND bar.provider = wanted.provider
          AND bar.start >= begin AND bar.start < finish
    ) AS minute
    UNION ALL
    SELECT day, symbol, provider, currency, price, price, price, price, 1, at, at FROM (
        SELECT DISTINCT ON (day, wanted.symbol, wanted.provider, currency, at)
               day, wanted.symbol, wanted.provider, coalesce(currency, '') AS currency,
               observed_at AS at, price
        FROM wanted CROSS JOIN LATERAL (
            SELECT id, currency, observed_at, price FROM price_points AS point
            WHERE point.symbol = wanted.symbol AND point.provider = wanted.provider AND precision = 'day'
              AND observed_at >= begin AND observed_at < finish AND id >= lowest
              AND {_TIME_AGREES.format(at="observed_at", id="id")}
        ) AS point
        ORDER BY day, wanted.symbol, wanted.provider, currency, at, id DESC
    ) AS of_day
)
SELECT symbol, '1d' AS interval, day AS start, provider, currency, {_JOINED}
FROM parts GROUP BY symbol, provider, day, currency
"""  # noqa: S608 - no outside text

_VALUES = "open, high, low, close, samples, first_observed_at, last_observed_at"
# A bar that is written again as it was is not touched.
STORE = f"""
INSERT INTO price_bars AS stored (symbol, interval, start, provider, currency, {_VALUES}, revision)
SELECT symbol, interval, start, provider, currency, {_VALUES}, 1 FROM ({{bars}}) AS made
ON CONFLICT (symbol, interval, start, provider, currency) DO UPDATE SET
    (open, high, low, close, samples, first_observed_at, last_observed_at, revision, changed_at) =
    (excluded.open, excluded.high, excluded.low, excluded.close, excluded.samples, excluded.first_observed_at,
     excluded.last_observed_at, stored.revision + (%(settled)s >= {{end}})::integer, now())
WHERE (stored.open, stored.high, stored.low, stored.close, stored.samples, stored.first_observed_at,
       stored.last_observed_at)
   <> (excluded.open, excluded.high, excluded.low, excluded.close, excluded.samples,
       excluded.first_observed_at, excluded.last_observed_at)
"""  # noqa: S608 - no outside text
