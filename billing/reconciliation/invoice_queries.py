"""The SQL of a reconciliation about increments (L8), by name: within PostgreSQL, and beside Stripe's totals.

Every query takes a slice of clients (`:ids`) and only reads. Rows that differ are named up to twenty per client (L9).
"""

from __future__ import annotations

from typing import Final

#: Each client's rollups against the parts that increments carry of them. The parts of a row lie end to end, up from 0
#: to what is planned of what was used, down from 0 to what is planned of what was returned: no gap, no overlap (L8).
PLANNED: Final = """
WITH part AS (
    SELECT client_id, sku, hour, increment_id, credits_from, credits_to,
           lag(credits_to, 1, 0::bigint) OVER (
               PARTITION BY client_id, sku, hour, credits_to < 0 ORDER BY abs(credits_from), increment_id) AS before
    FROM stripe_increment JOIN stripe_increment_part USING (increment_id) WHERE client_id = ANY(:ids)
), tiles AS (
    SELECT client_id, sku, hour, sum(credits_to - credits_from)::bigint AS parts,
           sum(greatest(0, credits_from - credits_to))::bigint AS returned_parts,
           bool_and(credits_from = before) AS tiled,
           array_agg(increment_id ORDER BY credits_from) AS increments
    FROM part GROUP BY client_id, sku, hour
), compared AS (
    SELECT client_id, sku, hour, rolled.credits, rolled.planned, coalesce(parts, 0) AS parts,
           coalesce(tiled, true) AND coalesce(returned_parts, 0) = coalesce(returned_planned, 0) AS tiled,
           coalesce(returned_planned > returned OR planned + returned_planned > credits + returned, false) AS beyond,
           coalesce(increments, '{}') AS increments
    FROM (SELECT client_id, sku, hour, credits, planned, returned, returned_planned
          FROM usage_rollup WHERE client_id = ANY(:ids)) AS rolled
    FULL JOIN tiles USING (client_id, sku, hour)
)
SELECT client_id, coalesce(sum(credits), 0)::bigint AS credits, coalesce(sum(planned), 0)::bigint AS planned,
       jsonb_path_query_array(
        jsonb_agg(jsonb_build_object('sku', sku, 'hour', hour, 'credits', credits, 'planned', planned, 'parts', parts,
                                     'tiled', tiled, 'beyond', beyond, 'increments', increments) ORDER BY hour, sku)
        FILTER (WHERE planned IS DISTINCT FROM parts OR NOT tiled OR beyond), '$[0 to 19]') AS differing
FROM compared GROUP BY client_id
"""

#: Each client's increments: the credits that they carry by state, and those in which something does not fit: `odd` says
#: what, in words of `laws.planned`. What an increment carries from before its period it names by the first such hour.
#: The hour in which a period ends may be its last: that of a subscription that ended in it.
INCREMENTS: Final = """
WITH part AS (
    SELECT increment_id, coalesce(sum(credits_to - credits_from), 0) AS parts, min(hour) AS first_hour,
           count(*) FILTER (WHERE hour >= period_end
                               OR carries_from IS NULL AND hour < date_trunc('hour', period_start, 'UTC')) AS outside,
           count(*) FILTER (WHERE sku_meter.event_name <> increment.event_name
                              AND sku_meter.created_at < planned_at) AS strange
    FROM stripe_increment AS increment LEFT JOIN stripe_increment_part USING (increment_id)
         LEFT JOIN sku_meter USING (sku)
    WHERE increment.client_id = ANY(:ids) GROUP BY increment_id
), made AS (
    SELECT increment_id, count(*) AS generations, max(made.generation) AS latest,
           bool_or((made.generation, made.identifier, made.kind, made.customer_id, made.period_start, made.period_end,
                    made.event_at)
                   = (increment.generation, increment.identifier, increment.kind, increment.customer_id,
                      increment.period_start, increment.period_end, increment.event_at)) AS is_latest
    FROM stripe_increment AS increment JOIN stripe_generation AS made USING (increment_id)
    WHERE increment.client_id = ANY(:ids) GROUP BY increment_id
), said AS (
    SELECT increment_id, bool_or(
               CASE said.resolved_as
               WHEN 'resend' THEN said.generation > increment.generation
                    OR said.generation = increment.generation AND state NOT IN ('pending', 'written_off')
               ELSE (said.generation, said.resolved_as, state) NOT IN (
                        (increment.generation, 'confirmed', 'confirmed'),
                        (increment.generation, 'write-off', 'written_off'))
               END) AS gainsaid
    FROM stripe_increment AS increment JOIN stripe_resolution AS said USING (increment_id)
    WHERE increment.client_id = ANY(:ids) GROUP BY increment_id
), called AS (
    SELECT increment_id, count(*) AS calls
    FROM stripe_increment JOIN stripe_attempt USING (increment_id)
    WHERE client_id = ANY(:ids) GROUP BY increment_id
), judged AS (
    SELECT increment_id, client_id, state, units, increment.credits_per_unit, parts, outside,
           units::numeric * increment.credits_per_unit AS credits,
           array_remove(ARRAY[
               CASE WHEN carries_from <> first_hour THEN 'carries_from' END,
               CASE WHEN made.generations IS DISTINCT FROM increment.generation OR latest <> increment.generation
                          OR NOT is_latest
                    THEN 'generation' END,
               CASE WHEN increment.credits_per_unit <> coalesce(meter.credits_per_unit, 1) THEN 'credits_per_unit' END,
               CASE WHEN strange > 0 THEN 'event_name' END,
               CASE WHEN gainsaid THEN 'resolution' END,
               CASE WHEN state = 'written_off' AND reason = '' THEN 'reason' END,
               CASE WHEN increment.attempts <> coalesce(calls, 0) THEN 'attempts' END
           ], NULL) AS odd
    FROM stripe_increment AS increment JOIN part USING (increment_id) LEFT JOIN made USING (increment_id)
         LEFT JOIN said USING (increment_id) LEFT JOIN called USING (increment_id) LEFT JOIN meter USING (event_name)
    WHERE client_id = ANY(:ids)
)
SELECT client_id, state, count(*) AS increments, sum(credits) AS credits,
       jsonb_path_query_array(
        jsonb_agg(jsonb_build_object('increment_id', increment_id, 'units', units, 'credits_per_unit', credits_per_unit,
                                     'parts', parts, 'outside', outside, 'odd', odd)
                  ORDER BY increment_id)
        FILTER (WHERE credits <> parts OR outside > 0 OR odd <> '{}'), '$[0 to 19]') AS differing
FROM judged GROUP BY client_id, state
"""

#: What was sent as meter events, by customer, meter, span of time and kind of key: all that is stamped within the span,
#: whoever's and of whatever period it is, since that is what Stripe adds up. Of what is quarantined or written off,
#: what was attempted may have arrived. Spans that ended before `:oldest` take no events any more. Asked for are the
#: periods of increments, those of their earlier identifiers, and each linked customer's present one, so that units
#: which no increment carries are seen.
PERIODS: Final = """
WITH own AS (
    SELECT * FROM stripe_increment WHERE client_id = ANY(:ids) AND kind = 'meter_event'
), place AS (
    SELECT client_id, customer_id, event_name, period_start, period_end, coalesce(sent_to, :books) AS books
    FROM own WHERE period_end > :oldest
    UNION
    SELECT client_id, made.customer_id, event_name, made.period_start, made.period_end, :books
    FROM stripe_increment AS increment JOIN stripe_generation AS made USING (increment_id)
    WHERE client_id = ANY(:ids) AND made.generation < increment.generation AND made.kind = 'meter_event'
      AND made.period_end > :oldest
    UNION
    SELECT client_id, customer_id, event_name, period_start, period_end, :books
    FROM stripe_customer JOIN stripe_period USING (customer_id)
    WHERE client_id = ANY(:ids) AND period_start <= :now AND period_end > :now
    UNION
    SELECT client_id, customer_id, :meter, :period_start, :period_end, :books
    FROM stripe_customer AS link WHERE client_id = ANY(:ids)
      AND NOT EXISTS (SELECT FROM stripe_period AS known WHERE known.customer_id = link.customer_id)
)
SELECT place.client_id, place.customer_id, place.event_name, place.period_start, place.period_end, place.books,
       place.event_name = :meter OR EXISTS (SELECT FROM meter WHERE meter.event_name = place.event_name) AS is_ours,
       coalesce(sum(units) FILTER (WHERE taken.known), 0)::bigint AS known,
       coalesce(sum(units) FILTER (WHERE taken.fresh), 0)::bigint AS fresh,
       coalesce(sum(units) FILTER (WHERE taken.doubtful), 0)::bigint AS doubtful,
       (array_agg(units) FILTER (WHERE taken.fresh OR taken.doubtful))[1:CAST(:open AS integer)] AS open_units,
       (array_agg(increment_id ORDER BY increment_id DESC) FILTER (WHERE state <> 'pending'))[1:20] AS increments
FROM place LEFT JOIN stripe_increment AS sent
     ON sent.customer_id = place.customer_id AND sent.event_name = place.event_name AND sent.kind = 'meter_event'
    AND sent.event_at >= place.period_start AND sent.event_at < place.period_end
    AND coalesce(sent.sent_to, :books) = place.books
CROSS JOIN LATERAL (
    SELECT state IN ('sent', 'confirmed') AS known,
           state = 'sent' AND last_attempt_at > :fresh AS fresh,
           state IN ('sending', 'ambiguous')
           OR state IN ('quarantined', 'written_off') AND first_attempt_at IS NOT NULL AS doubtful
) AS taken
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY client_id, period_start
"""
