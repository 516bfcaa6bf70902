"""Alerts of the report to Stripe: what a person must know, or a client, of usage on its way to an invoice.

Each is told once: of an increment under each of its identifiers, of usage that waits once until it can be planned. Who
has linked nobody has no use for a report, and is told of no usage that waits.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.sinks.sync.telling.status_statements import UNBILLED
from billing.task.runtime import Runtime

#: Alerts of one kind that one pass writes (L9).
_MOST: Final = 1_000
#: How long usage may wait for a customer or a subscription, as that of a client who has just come.
_PATIENCE: Final = timedelta(days=1)
#: An answer in doubt is resent for a day, and looked for during another, before it is sent anew.
_STALLED_FOR: Final = timedelta(days=3)
#: Late usage of periods that ended longer ago is nobody's news.
_NEWS: Final = timedelta(days=40)

_INSERT: Final = """
INSERT INTO alert (client_id, kind, threshold_percent, available, granted, source, occurred_at, delivery,
                   next_attempt_at, increment_id, found)
"""

#: What is for a person: rejected or quarantined.
_UNREPORTED: Final = text(f"""{_INSERT}
SELECT client_id, 'unreported', 0, 0, 0, source, :now, 'none', NULL, increment_id,
       state || coalesce(': ' || nullif(reason, ''), '') || ' (see: billing sync show ' || increment_id || ')'
FROM stripe_increment
CROSS JOIN LATERAL (SELECT 'unreported:' || increment_id || ':' || generation AS source) AS named
WHERE state IN ('rejected', 'quarantined') AND NOT EXISTS (SELECT FROM alert WHERE alert.source = named.source)
ORDER BY increment_id LIMIT :most
ON CONFLICT (source) DO NOTHING
""")  # noqa: S608 - text of our own

#: What is neither sent nor proved for days: no push, look or plan can do it (other books, no place, no link). The first
#: one of each client.
_STALLED: Final = text(f"""{_INSERT}
SELECT client_id, 'unreported', 0, 0, 0, source, :now, 'none', NULL, increment_id,
       state || ' for days' || coalesce(': ' || nullif(reason, ''), '') || ' (see: billing sync show ' || increment_id
       || ')'
FROM (
    SELECT DISTINCT ON (client_id) client_id, increment_id, state, reason,
           'stalled:' || increment_id || ':' || generation AS source
    FROM stripe_increment
    WHERE state NOT IN ('sent', 'confirmed', 'written_off') AND state IN ('pending', 'ambiguous')
      AND coalesce(last_attempt_at, planned_at) < :stalled
      AND (SELECT made_at FROM stripe_generation AS made
           WHERE made.increment_id = stripe_increment.increment_id
             AND made.generation = stripe_increment.generation) < :stalled
    ORDER BY client_id, increment_id
) AS first
WHERE NOT EXISTS (SELECT FROM alert WHERE alert.source = first.source)
ORDER BY increment_id LIMIT :most
ON CONFLICT (source) DO NOTHING
""")  # noqa: S608 - see above

#: Usage that came too late for its invoice: on a later one, on a line of its own, or on none. The client is told in the
#: same words. What a person has written off they know of; what corrections returned is no usage.
_LATE: Final = text(f"""{_INSERT}
SELECT increment.client_id, 'late_usage', 0, 0, 0, named.source, :now,
       CASE WHEN webhook.client_id IS NULL THEN 'none' ELSE 'pending' END,
       CASE WHEN webhook.client_id IS NULL THEN NULL ELSE CAST(:now AS timestamptz) END,
       increment_id,
       units || ' units of ' || event_name || CASE
           WHEN state = 'written_off' OR kind = 'invoice_item' THEN ' came after the period to '
               || to_char(period_end AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' had closed: ' || CASE
                   WHEN state = 'written_off' THEN 'they are written off, and on no invoice'
                   ELSE 'they are a line of their own on the next invoice' END
           ELSE ' are on the invoice of the period from ' || to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD')
               || ': among them is usage from ' || to_char(carries_from AT TIME ZONE 'UTC', 'YYYY-MM-DD')
               || ' on that came after the invoice of its own period was final' END
FROM stripe_increment AS increment LEFT JOIN webhook USING (client_id)
CROSS JOIN LATERAL (SELECT 'late:' || increment_id || ':' || generation
                           || CASE WHEN state = 'written_off' THEN '/written_off' ELSE '' END AS source) AS named
WHERE (carries_from IS NOT NULL OR kind = 'invoice_item' OR state = 'written_off') AND period_end > :news
  AND CASE WHEN state = 'written_off'
           THEN NOT EXISTS (SELECT FROM stripe_resolution AS said
                            WHERE said.increment_id = increment.increment_id AND resolved_as = 'write-off')
           WHEN kind = 'invoice_item' THEN true
           ELSE EXISTS (SELECT FROM stripe_increment_part AS part
                        WHERE part.increment_id = increment.increment_id AND credits_to > credits_from
                          AND hour < date_trunc('hour', period_start, 'UTC')) END
  AND NOT EXISTS (SELECT FROM alert WHERE alert.source = named.source)
ORDER BY increment_id LIMIT :most
ON CONFLICT (source) DO NOTHING
""")  # noqa: S608 - see above

#: Usage that nothing can be planned for. Named by the first hour of it: as long as that waits it is the same wait, and
#: usage of an earlier hour that comes meanwhile is part of it.
_WAITING: Final = text(f"""{_INSERT}
SELECT client_id, 'waiting_usage', 0, 0, 0, named.source, :now, 'none', NULL, NULL,
       credits || ' credits wait: ' || why
FROM (
    SELECT rollup.client_id, min(hour) AS since, sum(credits - planned)::bigint AS credits,
           CASE WHEN link.customer_id IS NULL THEN 'no customer is linked (billing client link CLIENT cus_…)'
                ELSE string_agg(DISTINCT unbilled.reason, '; ') END AS why
    FROM usage_rollup AS rollup LEFT JOIN stripe_customer AS link USING (client_id)
         LEFT JOIN stripe_period_read AS period_read USING (customer_id)
         LEFT JOIN sku_meter USING (sku)
         CROSS JOIN LATERAL (SELECT coalesce(sku_meter.event_name, :meter)) AS waiting (event_name)
         CROSS JOIN LATERAL ({UNBILLED}) AS unbilled (reason)
    WHERE unplanned AND (link.customer_id IS NULL OR :subscribed AND unbilled.reason <> '')
    GROUP BY rollup.client_id, link.customer_id
    HAVING min(hour) < :long_ago AND sum(credits - planned) > 0
) AS waiting
CROSS JOIN LATERAL (
    SELECT 'waiting:' || client_id || ':' || to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24') AS source
) AS named
WHERE EXISTS (SELECT FROM stripe_customer) AND NOT EXISTS (
    SELECT FROM alert
    WHERE alert.client_id = waiting.client_id AND alert.kind = 'waiting_usage' AND alert.source >= named.source)
ORDER BY client_id LIMIT :most
ON CONFLICT (source) DO NOTHING
""")  # noqa: S608 - see above


def tell_of_sync(runtime: Runtime) -> int:
    """Write what is new of the report to Stripe as alerts; return how many. Any number of workers may do so at once."""
    settings, now = runtime.settings, runtime.clock.now()
    given = {
        "now": now,
        "news": now - _NEWS,
        "long_ago": now - _PATIENCE,
        "stalled": now - _STALLED_FOR,
        "most": _MOST,
        "subscribed": settings.stripe_periods == "subscription",
        "meter": settings.stripe_meter,
    }
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        return sum(
            connection.execute(statement, given).rowcount for statement in (_UNREPORTED, _STALLED, _LATE, _WAITING)
        )
