"""The query of verify.py: which verdict each row of a span gets, and what a row has and should have."""

# Takes the span (`symbol`, `first`, `last`), `oldest`, `consumed_until`, `before` (4), `points` (5), `most`.
# Gives a row with the count of each verdict, one that counts the currencies that are `short`, and then the
# `most` lowest ids that are wrong or missing, with what is stored and what is expected.
#
# Before the span stand all that its first windows reach back to, in each of its currencies (an empty text
# for none): the last rows, the last points, and the last of these that are consumed, from `oldest` on. A
# currency with too few of them there is short: it may have more before. What has no partner
# under this symbol is looked up by its id: the partner may be stored under another one, or before what was
# read. LIMIT keeps that a look into an index.
#
# A window is of what is not pending; where a row was there before it got lost, of what is pending, too.
# Pruned is what is older than every point, so of a window it is enough to look at the oldest row. Times 0.2,
# because PostgreSQL's division rounds.
VERDICTS = """
WITH rows AS (
    SELECT event_id, price, window_size, average, currency FROM symbol_averages
    WHERE symbol = %(symbol)s AND event_id BETWEEN %(first)s AND %(last)s
), prices AS (
    SELECT id, price, published_at, currency FROM price_points
    WHERE symbol = %(symbol)s AND id BETWEEN %(first)s AND %(last)s
), currencies AS (
    SELECT coalesce(currency, '') AS name FROM rows UNION SELECT coalesce(currency, '') FROM prices
), earlier_rows AS NOT MATERIALIZED (
    SELECT rows.event_id, rows.price, rows.window_size, rows.average, rows.currency,
           coalesce(CASE WHEN points.id IS NULL THEN rows.currency ELSE points.currency END, '') AS name
    FROM symbol_averages AS rows LEFT JOIN LATERAL (
        SELECT id, currency FROM price_points WHERE id = rows.event_id LIMIT 1
    ) AS points ON true
    WHERE rows.symbol = %(symbol)s AND rows.event_id < %(first)s AND rows.event_id >= %(oldest)s
), earlier_prices AS NOT MATERIALIZED (
    SELECT id, price, published_at, currency FROM price_points AS points
    WHERE symbol = %(symbol)s AND id < %(first)s AND id >= %(oldest)s AND NOT EXISTS (
        SELECT FROM symbol_averages WHERE event_id = points.id AND symbol <> %(symbol)s
    )
), last_rows AS MATERIALIZED (
    SELECT currencies.name, last.* FROM currencies CROSS JOIN LATERAL (
        SELECT event_id, price, window_size, average, currency FROM earlier_rows
        WHERE earlier_rows.name = currencies.name ORDER BY event_id DESC LIMIT %(before)s
    ) AS last
), last_prices AS MATERIALIZED (
    SELECT currencies.name, last.* FROM currencies CROSS JOIN LATERAL (
        (SELECT * FROM earlier_prices WHERE coalesce(currency, '') = currencies.name
         ORDER BY id DESC LIMIT %(before)s)
        UNION
        (SELECT * FROM earlier_prices WHERE coalesce(currency, '') = currencies.name
         AND published_at <= %(consumed_until)s ORDER BY id DESC LIMIT %(before)s)
    ) AS last
), stored AS (
    SELECT * FROM rows
    UNION ALL
    SELECT event_id, price, window_size, average, currency FROM last_rows
), points AS (
    SELECT * FROM prices
    UNION ALL
    SELECT id, price, published_at, currency FROM last_prices
), paired AS (
    SELECT coalesce(stored.event_id, points.id) AS event_id,
           stored.event_id IS NOT NULL AS has_row, points.id IS NOT NULL AS has_point,
           stored.price AS stored_price, stored.window_size, stored.average,
           stored.currency AS stored_currency,
           points.price AS point_price, points.published_at, points.currency AS point_currency
    FROM stored FULL JOIN points ON points.id = stored.event_id
), found AS (
    SELECT paired.event_id,
           has_row OR its_row.symbol IS NOT NULL AS has_row,
           has_point OR its_point.symbol IS NOT NULL AS has_point,
           stored_price, window_size, average, stored_currency,
           coalesce(CASE
               WHEN has_point THEN point_currency
               WHEN its_point.symbol IS NOT NULL THEN its_point.currency
               ELSE stored_currency END, '') AS currency,
           coalesce(its_point.symbol, %(symbol)s) AS symbol,
           coalesce(point_price, its_point.price, stored_price) AS price,
           coalesce(published_at <= %(consumed_until)s, false) AS is_consumed
    FROM paired
    LEFT JOIN LATERAL (
        SELECT symbol, price, currency FROM price_points WHERE id = paired.event_id AND NOT has_point LIMIT 1
    ) AS its_point ON true
    LEFT JOIN LATERAL (
        SELECT symbol FROM symbol_averages WHERE event_id = paired.event_id AND NOT has_row LIMIT 1
    ) AS its_row ON true
    WHERE its_row.symbol IS NULL OR its_row.symbol = %(symbol)s
), windowed AS (
    SELECT *, has_row OR is_consumed AS counts,
           count(*) OVER counted AS size, sum(price) OVER counted * 0.2 AS mean,
           first_value(event_id) OVER counted
               < (SELECT id FROM price_points ORDER BY id LIMIT 1) AS has_pruned,
           count(*) OVER everything AS size_of_all, sum(price) OVER everything * 0.2 AS mean_of_all
    FROM found
    WINDOW counted AS (
        PARTITION BY has_row OR is_consumed, currency
        ORDER BY event_id ROWS BETWEEN %(before)s PRECEDING AND CURRENT ROW
    ), everything AS (
        PARTITION BY currency ORDER BY event_id ROWS BETWEEN %(before)s PRECEDING AND CURRENT ROW
    )
), judged AS MATERIALIZED (
    SELECT *, CASE
        WHEN NOT counts THEN 'pending'
        WHEN NOT has_row THEN 'missing'
        WHEN has_pruned THEN 'unverifiable'
        WHEN symbol <> %(symbol)s OR stored_price <> price OR coalesce(stored_currency, '') <> currency
            THEN 'wrong'
        WHEN (window_size, average)
                IS DISTINCT FROM (size, CASE WHEN size = %(points)s THEN mean END)
            AND (window_size, average)
                IS DISTINCT FROM (size_of_all, CASE WHEN size_of_all = %(points)s THEN mean_of_all END)
            THEN 'wrong'
        WHEN NOT has_point THEN 'foreign'
        ELSE 'right' END AS verdict
    FROM windowed WHERE event_id >= %(first)s
)
SELECT verdict, count(*), NULL::uuid, NULL::numeric, NULL::int, NULL::numeric, NULL::text,
       NULL::text, NULL::numeric, NULL::int, NULL::numeric, NULL::text
FROM judged GROUP BY verdict
UNION ALL
SELECT 'short', count(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM currencies
WHERE (SELECT count(*) FROM last_rows WHERE last_rows.name = currencies.name) < %(before)s
   OR (SELECT count(*) FROM last_prices WHERE last_prices.name = currencies.name) < %(before)s
   OR (SELECT count(*) FROM last_prices WHERE last_prices.name = currencies.name
       AND published_at <= %(consumed_until)s) < %(before)s
UNION ALL
(SELECT verdict, NULL, event_id, stored_price, window_size, average,
        stored_currency,
        symbol, price, size, CASE WHEN size = %(points)s THEN trim_scale(mean) END, nullif(currency, '')
 FROM judged WHERE verdict IN ('wrong', 'missing') ORDER BY event_id LIMIT %(most)s)
"""
