"""The queries of verify.py: which verdict each row gets, and what a row has and should have."""

# Takes `symbol` (None: all of them), `consumed_until` and `most`; gives for each symbol and verdict the
# count, and of those that failed the lowest `most` ids. One pass: the tables are joined and sorted once, and
# what is sorted is kept narrow. A row that is older than every point is pruned, so of a window it is enough
# to look at the oldest row. Times 0.2, because PostgreSQL's division rounds.
VERDICTS = """
WITH rows AS (
    SELECT * FROM symbol_averages WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
), points AS (
    SELECT * FROM price_points WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
), paired AS (
    SELECT coalesce(rows.event_id, points.id) AS event_id,
           coalesce(rows.symbol, points.symbol) AS symbol,
           rows.event_id IS NOT NULL AS has_row,
           points.id IS NOT NULL AS has_point,
           rows.window_size, rows.average,
           coalesce(points.price, rows.price) AS price,
           coalesce(points.symbol <> rows.symbol OR points.price <> rows.price, false) AS differs,
           rows.event_id IS NULL AND coalesce(points.published_at <= %(consumed_until)s, false) AS is_missing
    FROM rows FULL JOIN points ON points.id = rows.event_id
), windowed AS (
    SELECT *,
           count(*) OVER by_rows AS points, sum(price) OVER by_rows * 0.2 AS mean,
           first_value(event_id) OVER by_rows
               < (SELECT id FROM price_points ORDER BY id LIMIT 1) AS has_pruned,
           count(*) OVER by_points AS all_points, sum(price) OVER by_points * 0.2 AS mean_of_all
    FROM paired
    WINDOW by_rows AS (
        PARTITION BY symbol, has_row ORDER BY event_id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW
    ), by_points AS (
        PARTITION BY symbol ORDER BY event_id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW
    )
), judged AS (
    SELECT symbol, event_id, CASE
        WHEN is_missing THEN 'missing'
        WHEN NOT has_row THEN 'pending'
        WHEN has_pruned THEN 'unverifiable'
        WHEN differs THEN 'wrong'
        WHEN (window_size, average)
                IS DISTINCT FROM (points, CASE WHEN points = 5 THEN mean END)
            AND (window_size, average)
                IS DISTINCT FROM (all_points, CASE WHEN all_points = 5 THEN mean_of_all END) THEN 'wrong'
        WHEN NOT has_point THEN 'foreign'
        ELSE 'right' END AS verdict
    FROM windowed
)
SELECT verdict, count(*),
       ARRAY(
           SELECT id FROM unnest(array_agg(event_id) FILTER (WHERE verdict IN ('wrong', 'missing'))) AS id
           ORDER BY id LIMIT %(most)s
       )
FROM judged GROUP BY symbol, verdict
"""

# What some ids have and should have; rows before facts that are expected.
FACTS = """
SELECT ids.event_id, coalesce(stored.symbol, points.symbol), stored.price, stored.window_size, stored.average,
       coalesce(points.symbol, stored.symbol), coalesce(points.price, stored.price), five.points, five.mean
FROM unnest(%(event_ids)s::uuid[]) AS ids (event_id)
LEFT JOIN symbol_averages AS stored ON stored.event_id = ids.event_id
LEFT JOIN price_points AS points ON points.id = ids.event_id
CROSS JOIN LATERAL (
    SELECT count(*) AS points, CASE WHEN count(*) = 5 THEN trim_scale(sum(price) * 0.2) END AS mean
    FROM (
        SELECT coalesce(point.price, member.price) AS price
        FROM symbol_averages AS member LEFT JOIN price_points AS point ON point.id = member.event_id
        WHERE member.symbol = stored.symbol AND member.event_id <= ids.event_id
        ORDER BY member.event_id DESC LIMIT 5
    ) AS members
) AS five ORDER BY ids.event_id
"""
