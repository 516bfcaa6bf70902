"""The SQL of the report's status, by name: each reads all clients at once, through the indexes of what is open."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

#: Names of clients, and increments to look at, that are shown (L9).
NAMES: Final = 10

_STATES: Final = """
SELECT event_name, state, count(*) AS increments, sum(units)::bigint AS units,
       sum(units::numeric * credits_per_unit) AS credits, count(DISTINCT client_id) AS clients,
       min(planned_at) AS oldest, max(planned_at) AS planned_at, max(last_attempt_at) AS sent_at,
       max(checked_at) AS checked_at
FROM stripe_increment {condition}GROUP BY event_name, state
"""
#: The increments by meter and state, and when anything was last planned, sent, looked at.
STATES: Final = text(_STATES.format(condition=""))
#: Those of them that wait for a push or a person: by their index, however many there ever were.
OPEN_STATES: Final = text(_STATES.format(condition="WHERE state NOT IN ('sent', 'confirmed', 'written_off') "))

#: Clients by state: one may have increments of several meters.
CLIENTS: Final = text("SELECT state, count(DISTINCT client_id) FROM stripe_increment GROUP BY state")

#: Why nothing can be planned for a customer and meter, null or empty where it can: Stripe's word on the customer, or
#: that it was read and no period of this meter was seen, as of who is subscribed to another meter only.
UNBILLED: Final = """
SELECT coalesce(nullif(period_read.reason, ''), CASE
    WHEN period_read.read_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM stripe_period AS known
        WHERE known.customer_id = period_read.customer_id AND known.event_name = waiting.event_name)
    THEN 'no billing period of meter ' || waiting.event_name || ' is known' END)
"""

#: What no increment carries, per client and meter, by why it waits: for a link, for a billing period, for more usage
#: (it is less than one unit, or below 0 after corrections), or for nothing but the next plan.
WAITING: Final = text(f"""
WITH waiting AS (
    SELECT rollup.client_id, link.customer_id, counted_by AS event_name,
           coalesce(max(credits_per_unit), 1) AS credits_per_unit,
           sum(rollup.credits - rollup.planned)::bigint AS credits, min(rollup.hour) AS oldest
    FROM usage_rollup AS rollup LEFT JOIN stripe_customer AS link ON link.client_id = rollup.client_id
         LEFT JOIN sku_meter USING (sku)
         CROSS JOIN LATERAL coalesce(sku_meter.event_name, :meter) AS counted_by
         LEFT JOIN meter ON meter.event_name = counted_by
    WHERE rollup.unplanned
    GROUP BY rollup.client_id, link.customer_id, counted_by
), judged AS (
    SELECT client_id, credits, oldest, unbilled.reason,
           CASE WHEN customer_id IS NULL THEN CASE WHEN credits > 0 THEN 'unlinked' END
                WHEN credits < 0 THEN 'carried'
                WHEN credits < credits_per_unit THEN 'remainder'
                WHEN :subscribed AND unbilled.reason <> '' THEN 'unbilled'
                ELSE 'unplanned' END AS why
    FROM waiting LEFT JOIN stripe_period_read AS period_read USING (customer_id)
         CROSS JOIN LATERAL ({UNBILLED}) AS unbilled (reason)
    WHERE credits <> 0
)
SELECT why, abs(sum(credits))::bigint AS credits, count(DISTINCT client_id) AS clients, min(oldest) AS oldest,
       (array_agg(DISTINCT client_id ORDER BY client_id))[1:{NAMES}] AS names,
       (array_agg(DISTINCT reason) FILTER (WHERE why = 'unbilled'))[1:{NAMES}] AS reasons
FROM judged WHERE why IS NOT NULL GROUP BY why
""")  # noqa: S608 - a constant number

#: Usage of earlier periods that increments of periods not yet ended carry.
LATE: Final = text(f"""
SELECT coalesce(sum(credits_to - credits_from), 0)::bigint AS credits, count(DISTINCT client_id) AS clients,
       (array_agg(DISTINCT client_id ORDER BY client_id))[1:{NAMES}] AS names
FROM stripe_increment JOIN stripe_increment_part USING (increment_id)
WHERE carries_from IS NOT NULL AND period_end > :now AND state <> 'written_off'
  AND hour < date_trunc('hour', period_start, 'UTC')
""")  # noqa: S608 - see above

#: What a person should look at. What Stripe drops after it has answered 200 shows in no answer, only in no summary.
#: What nobody sends (another meter is configured, a link was taken away) shows in nothing else. The reason of what was
#: sent is what its summary said.
CONCERNS: Final = text("""
SELECT *, count(*) OVER () AS concerned,
       CASE WHEN state = 'pending'
            THEN 'planned more than a day ago for meter ' || event_name || ', and not sent' || coalesce(
                 '; ' || nullif(reason, ''), '')
            WHEN state <> 'sent' OR reason <> '' THEN reason
            WHEN checked_at > last_attempt_at + :patience
            THEN 'sent more than a day ago, and Stripe''s summaries do not show it'
            ELSE 'sent more than a day ago, and Stripe''s summaries were not asked since' END AS why
FROM stripe_increment
WHERE state IN ('ambiguous', 'rejected', 'quarantined')
   OR state = 'sent' AND (reason <> '' OR last_attempt_at < :long_ago)
   OR state = 'pending' AND planned_at < :long_ago
ORDER BY increment_id LIMIT :names
""")

#: Reports of the last weeks whose calls are none of ours, or that name none: the newest first.
UNMATCHED: Final = text("""
SELECT event_id, event_name, code, count, window_end, count(*) OVER () AS reports
FROM stripe_error_report WHERE increments = '[]'::jsonb AND window_end > :since
ORDER BY window_end DESC, event_id LIMIT :names
""")
LAST_REPORT: Final = text("SELECT max(window_end) FROM stripe_error_report")
