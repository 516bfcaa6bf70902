"""The SQL of a plan, in the order in which its transaction runs it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import TextClause, text

from billing.schema.advisory import Guard
from billing.schema.stripe import WRITE_ONCE
from billing.sinks.sync.log import Having
from billing.sinks.sync.planning.periods import CLOSING
from billing.sinks.sync.postgres.rows import COLUMNS, NAMES

#: One planner at a time; and no statement waits long for a consumer's batch (L9).
TRY_LEAD: Final = text(f"""
SELECT set_config('lock_timeout', '15s', true), pg_try_advisory_xact_lock({int(Guard.STRIPE_PLAN)}, 0) AS leads
""")

#: Lock what cannot be sent as it is. What somebody else has locked is left for the next plan.
LOCK_REISSUED: Final = {
    of_one: text(f"""
SELECT {COLUMNS} FROM stripe_increment
WHERE increment_id > :after AND state NOT IN ('sent', 'confirmed', 'written_off') {condition}
  AND (state = 'pending' AND (closes_at <= :now OR kind = 'meter_event' AND event_at <= :too_old OR event_at > :ahead)
       OR state = 'ambiguous' AND absence_checks >= :checks)
ORDER BY increment_id LIMIT :most
FOR NO KEY UPDATE SKIP LOCKED
""")  # noqa: S608 - constants
    for of_one, condition in ((False, ""), (True, "AND client_id = :client_id"))
}

READ_CUSTOMERS: Final = text("""
SELECT client_id, customer_id FROM stripe_customer WHERE client_id = ANY(CAST(:client_ids AS text[]))
""")

READ_PERIODS: Final = text("""
SELECT customer_id, event_name, period_start, period_end, closes_at, ended, subscription_id
FROM stripe_period WHERE customer_id = ANY(CAST(:customer_ids AS text[]))
ORDER BY customer_id, event_name, period_start
""")

FIRST_HOUR: Final = text("""
SELECT min(hour) FROM stripe_increment_part WHERE increment_id = :increment_id
""")

#: What is not of its generation.
CHANGE: Final = text("""
UPDATE stripe_increment
SET state = :state, reason = :reason, closes_at = :closes_at, lease_until = :lease_until
WHERE increment_id = :increment_id
""")

#: The next generation; a trigger keeps it on record, and refuses what would change the amount.
REISSUE: Final = text(f"""
UPDATE stripe_increment SET {", ".join(f"{name} = :{name}" for name in NAMES if name not in WRITE_ONCE)}
WHERE increment_id = :increment_id
""")  # noqa: S608 - names of columns

#: Whether a linked client has what it needs: a count is read by client, `EXISTS` might be by all periods there are.
HAVING: Final = {
    Having.NOTHING: "true",
    Having.KNOWN_PERIOD: "(SELECT count(*) FROM stripe_period WHERE customer_id = linked.customer_id) > 0",
    Having.OPEN_PERIOD: "(SELECT count(*) FROM stripe_period WHERE customer_id = linked.customer_id"
    " AND (closes_at IS NULL OR closes_at > :now)) > 0",
    Having.CLOSING_PERIOD: "(SELECT count(*) FROM stripe_period WHERE customer_id = linked.customer_id"  # noqa: S608
    f" AND least(period_end, closes_at - interval '{CLOSING.total_seconds():.0f} seconds') <= :now"
    " AND closes_at > :now) > 0",
}


def _lock_unplanned(having: Having, *, of_one: bool) -> TextClause:
    condition = "AND linked.client_id = :client_id" if of_one else ""
    return text(f"""
SELECT rollup.client_id, link.customer_id, rollup.sku, rollup.hour, rollup.credits, rollup.planned,
       rollup.returned, rollup.returned_planned
FROM usage_rollup AS rollup JOIN stripe_customer AS link ON link.client_id = rollup.client_id
WHERE rollup.unplanned AND rollup.client_id IN (
    SELECT client_id FROM stripe_customer AS linked
    WHERE client_id > :after {condition} AND EXISTS (
        SELECT FROM usage_rollup AS used WHERE used.client_id = linked.client_id AND used.unplanned
    ) AND {HAVING[having]}
    ORDER BY client_id LIMIT :clients
)
ORDER BY rollup.client_id, rollup.sku, rollup.hour LIMIT :rows
FOR NO KEY UPDATE OF rollup
""")  # noqa: S608 - constants


#: Lock what is unplanned of the next linked clients, in key order: the order in which consumers write these rows.
LOCK_UNPLANNED: Final = {
    (having, of_one): _lock_unplanned(having, of_one=of_one) for having in Having for of_one in (False, True)
}

READ_METERS: Final = text("SELECT event_name, credits_per_unit FROM meter WHERE credits_per_unit <> 1")
READ_SKU_METERS: Final = text("SELECT sku, event_name FROM sku_meter")

#: The minutes that customers' increments have already, the latest first, each customer's from an instant back; those of
#: generations that were given up, too.
READ_TAKEN: Final = text("""
SELECT wanted.place, taken.event_at
FROM unnest(CAST(:customers AS text[]), CAST(:events AS text[]), CAST(:latest AS timestamptz[]))
     WITH ORDINALITY AS wanted (customer_id, event_name, latest, place)
CROSS JOIN LATERAL (
    (SELECT event_at FROM stripe_increment
     WHERE customer_id = wanted.customer_id AND event_name = wanted.event_name AND event_at <= wanted.latest
     ORDER BY event_at DESC LIMIT :most)
    UNION
    (SELECT DISTINCT earlier.event_at
     FROM stripe_generation AS later JOIN stripe_generation AS earlier USING (increment_id)
          JOIN stripe_increment AS increment USING (increment_id)
     WHERE later.customer_id = wanted.customer_id AND later.generation > 1
       AND earlier.generation < later.generation AND earlier.customer_id = wanted.customer_id
       AND increment.event_name = wanted.event_name AND earlier.event_at <= wanted.latest
     ORDER BY earlier.event_at DESC LIMIT :most)
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
READ_GENERATION: Final = text("SELECT generation FROM stripe_increment WHERE increment_id = :increment_id")
