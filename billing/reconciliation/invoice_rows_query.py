"""The SQL of the table per client, meter and period (L8)."""

from __future__ import annotations

from typing import Final

#: What became of each credit, by the period in which it was used. An hour belongs to the period that begins in it, of
#: several to the one that began last; where none is known, to its UTC month. A SKU's usage belongs to the meter that
#: counts it now, but for what increments of another meter carry already.
INVOICE_ROWS: Final = """
WITH own AS (
    SELECT * FROM stripe_increment WHERE client_id = ANY(:ids)
), place AS (
    SELECT client_id, event_name, period_start, period_end FROM own
    UNION
    SELECT client_id, event_name, made.period_start, made.period_end
    FROM own JOIN stripe_generation AS made USING (increment_id)
    UNION
    SELECT client_id, event_name, period_start, period_end
    FROM stripe_customer JOIN stripe_period USING (customer_id) WHERE client_id = ANY(:ids)
), logged AS (
    SELECT client_id, sku, date_trunc('hour', occurred_at, 'UTC') AS hour, sum(credits)::bigint AS log
    FROM usage_ever WHERE client_id = ANY(:ids) GROUP BY 1, 2, 3
), rolled AS (
    SELECT client_id, sku, hour, credits AS rollup, credits - planned AS unplanned
    FROM usage_rollup WHERE client_id = ANY(:ids)
), part AS (
    SELECT client_id, sku, hour, own.event_name, period_start, coalesce(sku_meter.event_name, :meter) AS counted_by,
           CASE WHEN state IN ('sending', 'sent', 'ambiguous') THEN 'in_flight'
                WHEN state = 'pending' THEN 'planned'
                WHEN state = 'rejected' THEN 'quarantined' ELSE state END AS became,
           sum(credits_to - credits_from)::bigint AS credits
    FROM own JOIN stripe_increment_part USING (increment_id) LEFT JOIN sku_meter USING (sku)
    GROUP BY 1, 2, 3, 4, 5, 6, 7
), hourly AS (
    SELECT client_id, coalesce(sku_meter.event_name, :meter) AS event_name, hour, log, rollup, unplanned,
           NULL::timestamptz AS billed_in, NULL AS became, 0::bigint AS credits
    FROM logged FULL JOIN rolled USING (client_id, sku, hour) LEFT JOIN sku_meter USING (sku)
    UNION ALL
    SELECT client_id, event_name, hour, 0, 0, 0, period_start, became, credits FROM part
    UNION ALL
    SELECT client_id, event_name, hour, credits, credits, 0, NULL, NULL, 0 FROM part WHERE event_name <> counted_by
    UNION ALL
    SELECT client_id, counted_by, hour, -credits, -credits, 0, NULL, NULL, 0 FROM part WHERE event_name <> counted_by
), placed AS (
    SELECT DISTINCT ON (client_id, event_name, hour) client_id, event_name, hour, period_start, period_end
    FROM (SELECT DISTINCT client_id, event_name, hour FROM hourly) AS hours JOIN place USING (client_id, event_name)
    WHERE hour >= date_trunc('hour', period_start, 'UTC') AND hour < period_end
    ORDER BY client_id, event_name, hour, period_start DESC, period_end
), counted AS (
    SELECT hourly.*, coalesce(period_start, month) AS period_start, period_start IS NOT NULL AS is_known,
           coalesce(period_end, month + interval '1 month') AS period_end,
           CASE WHEN became <> 'written_off' AND billed_in IS DISTINCT FROM period_start THEN 'carried'
                ELSE became END AS ended
    FROM hourly LEFT JOIN placed USING (client_id, event_name, hour)
         CROSS JOIN LATERAL date_trunc('month', hour, 'UTC') AS month
)
SELECT client_id, counted.event_name, period_start, max(period_end) AS period_end, is_known,
       coalesce(max(credits_per_unit), 1) AS credits_per_unit,
       coalesce(sum(log), 0)::bigint AS log, coalesce(sum(rollup), 0)::bigint AS rollup,
       coalesce(sum(unplanned), 0)::bigint AS unplanned,
       coalesce(sum(credits) FILTER (WHERE ended = 'planned'), 0)::bigint AS planned,
       coalesce(sum(credits) FILTER (WHERE ended = 'in_flight'), 0)::bigint AS in_flight,
       coalesce(sum(credits) FILTER (WHERE ended = 'confirmed'), 0)::bigint AS confirmed,
       coalesce(sum(credits) FILTER (WHERE ended = 'quarantined'), 0)::bigint AS quarantined,
       coalesce(sum(credits) FILTER (WHERE ended = 'written_off'), 0)::bigint AS written_off,
       coalesce(sum(credits) FILTER (WHERE ended = 'carried'), 0)::bigint AS carried
FROM counted LEFT JOIN meter ON meter.event_name = counted.event_name
GROUP BY 1, 2, 3, 5 ORDER BY 1, 2, 3
"""
