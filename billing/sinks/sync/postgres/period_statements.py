"""The SQL of billing periods: whose are to be read, and what is kept of what was read."""

from __future__ import annotations

from typing import Final

from sqlalchemy import TextClause, text

from billing.sinks.sync.log import Having
from billing.sinks.sync.postgres.plan_statements import HAVING
from billing.sinks.sync.postgres.rows import COLUMNS

#: Customers with a whole unit to plan, or with something to send that was left (its subscription may be gone), in the
#: order in which they need to be read. What is less than a unit waits for more, and for no reading. Who has no period
#: for a reason that is known comes after who has none that covers now, and in turn with everybody else.
_FIND_UNREAD: Final = """
SELECT linked.customer_id
FROM stripe_customer AS linked LEFT JOIN stripe_period_read AS seen USING (customer_id)
WHERE (EXISTS (
           SELECT FROM usage_rollup AS used
           LEFT JOIN sku_meter AS own ON own.sku = used.sku
           LEFT JOIN meter ON meter.event_name = coalesce(own.event_name, :meter)
           WHERE used.client_id = linked.client_id AND used.unplanned
           GROUP BY coalesce(own.event_name, :meter), meter.credits_per_unit
           HAVING sum(used.credits - used.planned) >= coalesce(meter.credits_per_unit, 1)
       ) OR linked.client_id IN (
           SELECT client_id FROM stripe_increment
           WHERE state NOT IN ('sent', 'confirmed', 'written_off') AND state IN ('pending', 'ambiguous')
       ))
  AND (seen.read_at IS NULL OR seen.read_at < :before OR seen.read_at > :now) {condition}
ORDER BY coalesce(seen.reason, '') <> '' OR (
    SELECT count(*) FROM stripe_period
    WHERE customer_id = linked.customer_id AND period_start <= :now AND period_end > :now
) > 0, seen.read_at NULLS FIRST, linked.customer_id
LIMIT :most
"""

#: Clients that a plan leaves out, by what the sink said of their periods.
_COUNT_WAITING: Final = """
SELECT coalesce(nullif(seen.reason, ''), 'no billing period is open') AS reason, count(*) AS clients
FROM stripe_customer AS linked LEFT JOIN stripe_period_read AS seen USING (customer_id)
WHERE NOT ({having}) AND EXISTS (SELECT FROM usage_rollup WHERE client_id = linked.client_id AND unplanned) {condition}
GROUP BY 1 ORDER BY 1
"""

_OF_ONE: Final = "AND linked.client_id = :client_id"

FIND_UNREAD: Final = {one: text(_FIND_UNREAD.format(condition=_OF_ONE if one else "")) for one in (False, True)}
COUNT_WAITING: Final[dict[tuple[Having, bool], TextClause]] = {
    (having, one): text(_COUNT_WAITING.format(having=HAVING[having], condition=_OF_ONE if one else ""))
    for having in Having
    for one in (False, True)
}

NOTE_TRIED: Final = text("""
INSERT INTO stripe_period_read (customer_id, read_at) VALUES (:customer_id, :read_at)
ON CONFLICT (customer_id) DO UPDATE SET read_at = excluded.read_at
""")

#: First of all, so that two who keep what they read of one customer do so one after the other.
NOTE_READ: Final = text("""
INSERT INTO stripe_period_read (customer_id, read_at, reason) VALUES (:customer_id, :read_at, :reason)
ON CONFLICT (customer_id) DO UPDATE SET read_at = excluded.read_at, reason = excluded.reason
""")

DROP_PERIODS: Final = text("""
DELETE FROM stripe_period
WHERE customer_id = :customer_id AND event_name = :event_name AND period_start = ANY(CAST(:starts AS timestamptz[]))
""")

KEEP_PERIOD: Final = text("""
INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, closes_at, ended, subscription_id,
                           read_at)
VALUES (:customer_id, :event_name, :start, :end, :closes_at, :ended, :subscription_id, :read_at)
ON CONFLICT (customer_id, event_name, period_start) DO UPDATE
SET period_end = excluded.period_end, closes_at = excluded.closes_at, ended = excluded.ended,
    subscription_id = excluded.subscription_id, read_at = excluded.read_at
""")

#: What may still be sent, or is being sent.
LOCK_OPEN: Final = text(f"""
SELECT {COLUMNS} FROM stripe_increment
WHERE customer_id = :customer_id AND event_name = :event_name AND kind = 'meter_event'
  AND state IN ('pending', 'sending', 'ambiguous')
ORDER BY increment_id
FOR NO KEY UPDATE
""")  # noqa: S608 - constants

CLOSE: Final = text("UPDATE stripe_increment SET closes_at = :closes_at WHERE increment_id = :increment_id")
