"""The SQL of a reading, by name: each reads what is open through its index, or the end of what is long (L9).

None reads the usage history, the alerts or the increments from end to end, however long they have become.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

#: Counts go no further.
COUNT_MAX: Final = 100_000
#: Rows at the end of the history of which one was recorded last: runs end in another order than they begin.
_LAST_ROWS: Final = 100
#: Increments at the end of theirs among which one was planned, sent or confirmed last.
_LAST_INCREMENTS: Final = 10_000
#: A table up to this size is counted from end to end, in some ten milliseconds.
SMALL_BYTES: Final = 32 * 1024 * 1024

SHARDS: Final = text("""
SELECT number FROM generate_series(0, :shards - 1) AS number
WHERE EXISTS (SELECT FROM client WHERE client.shard = number)
""")

DEAD_LETTERS: Final = text(f"""
SELECT count(*) FROM (SELECT FROM dead_letter WHERE state = 'open' LIMIT {COUNT_MAX}) AS waiting
""")  # noqa: S608 - see above

#: What has waited longest is about to expire first, or nearly so: parked tasks may wait for different times.
PARKED: Final = text(f"""
SELECT (SELECT count(*) FROM (SELECT FROM parked_task WHERE state = 'waiting' LIMIT {COUNT_MAX}) AS waiting) AS tasks,
       (SELECT min(parked_at) FROM (SELECT parked_at FROM parked_task WHERE state = 'waiting'
                                    ORDER BY expires_at LIMIT 1000) AS first) AS oldest_at
""")  # noqa: S608 - see above

DELIVERIES: Final = text(f"""
SELECT count(*) FROM (SELECT FROM alert WHERE delivery = 'pending' LIMIT {COUNT_MAX}) AS waiting
""")  # noqa: S608 - see above

#: When the history got its last row, as above: of the runs that began last, without ids that lie ahead of time.
LAST_ROW: Final = text(f"""
SELECT CAST(:now AS timestamptz) - (clock_timestamp() - max(recorded_at)) FROM (
    SELECT recorded_at FROM usage_history WHERE run_id < billing_run_id_bound(now() + interval '1 hour')
    ORDER BY run_id DESC LIMIT {_LAST_ROWS}
) AS last
""")  # noqa: S608 - see above

#: Increments that are not at their end, and those that were written off: by their partial indexes.
INCREMENTS: Final = text("""
SELECT state, count(*) AS increments, sum(units)::bigint AS units, min(planned_at) AS oldest_at,
       max(last_attempt_at) AS sent_at
FROM stripe_increment WHERE state NOT IN ('sent', 'confirmed', 'written_off') GROUP BY state
UNION ALL
SELECT state, count(*), sum(units)::bigint, min(planned_at), max(last_attempt_at)
FROM stripe_increment WHERE state = 'sent' GROUP BY state
UNION ALL
SELECT state, count(*), sum(units)::bigint, min(planned_at), max(last_attempt_at)
FROM stripe_increment WHERE state = 'written_off' GROUP BY state
""")
INCREMENTS_SIZE: Final = text("""
SELECT pg_relation_size(oid) <= :small AS small, greatest(reltuples, 0)::bigint AS rows
FROM pg_class WHERE oid = 'stripe_increment'::regclass
""")
#: Of a small table alone.
CONFIRMED: Final = text("""
SELECT count(*) AS increments, sum(units)::bigint AS units, min(planned_at) AS oldest_at
FROM stripe_increment WHERE state = 'confirmed'
""")
LAST_INCREMENTS: Final = text(f"""
SELECT max(planned_at) AS planned_at, max(last_attempt_at) AS sent_at, max(confirmed_at) AS confirmed_at
FROM (SELECT planned_at, last_attempt_at, confirmed_at FROM stripe_increment
      ORDER BY increment_id DESC LIMIT {_LAST_INCREMENTS}) AS last
""")  # noqa: S608 - see above
