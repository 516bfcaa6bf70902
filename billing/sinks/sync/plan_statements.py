"""The SQL of a plan, in the order in which its transaction runs it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from billing.schema.advisory import Guard

#: One planner at a time; and no statement waits long for a consumer's batch (L9).
TRY_LEAD: Final = text(f"""
SELECT set_config('lock_timeout', '15s', true), pg_try_advisory_xact_lock({int(Guard.STRIPE_PLAN)}, 0) AS leads
""")

#: Lock what is unplanned of the next linked clients, in key order: the order in which consumers write these rows.
LOCK_UNPLANNED: Final = text("""
SELECT rollup.client_id, link.customer_id, rollup.sku, rollup.hour, rollup.credits, rollup.planned,
       rollup.returned, rollup.returned_planned
FROM usage_rollup AS rollup JOIN stripe_customer AS link ON link.client_id = rollup.client_id
WHERE rollup.unplanned AND rollup.client_id IN (
    SELECT client_id FROM stripe_customer AS linked
    WHERE client_id > :after AND EXISTS (
        SELECT FROM usage_rollup AS used WHERE used.client_id = linked.client_id AND used.unplanned
    )
    ORDER BY client_id LIMIT :clients
)
ORDER BY rollup.client_id, rollup.sku, rollup.hour LIMIT :rows
FOR NO KEY UPDATE OF rollup
""")

#: The minutes that customers' increments have already, the latest first, each customer's from an instant back.
READ_TAKEN: Final = text("""
SELECT wanted.place, taken.event_at
FROM unnest(CAST(:customers AS text[]), CAST(:latest AS timestamptz[]))
     WITH ORDINALITY AS wanted (customer_id, latest, place)
CROSS JOIN LATERAL (
    SELECT event_at FROM stripe_increment
    WHERE customer_id = wanted.customer_id AND event_name = :event_name AND event_at <= wanted.latest
    ORDER BY event_at DESC LIMIT :most
) AS taken
""")

#: The rows are locked, so what was read is what they are.
ADVANCE_PLANNED: Final = text("""
UPDATE usage_rollup AS rollup
SET planned = rollup.planned + advanced.units, returned_planned = rollup.returned_planned + advanced.returned
FROM unnest(CAST(:clients AS text[]), CAST(:skus AS text[]), CAST(:hours AS timestamptz[]), CAST(:units AS bigint[]),
            CAST(:returned AS bigint[])) AS advanced (client_id, sku, hour, units, returned)
WHERE rollup.client_id = advanced.client_id AND rollup.sku = advanced.sku AND rollup.hour = advanced.hour
""")
