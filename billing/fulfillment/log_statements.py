"""The SQL of the usage log, statement by statement, in the order in which a batch's transaction runs them."""

from __future__ import annotations

from typing import Final

from billing.fulfillment.usage_rows import COLUMNS
from billing.ledger.postings import ADD
from billing.schema.advisory import Guard

#: Once per connection: every wait has a bound (L9), and what is acked after a commit must be on disk.
PREPARE_CONNECTION: Final = """
SELECT set_config('lock_timeout', '15s', false),
       set_config('statement_timeout', '60s', false),
       set_config('idle_in_transaction_session_timeout', '60s', false),
       CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
"""

#: Once per connection: where a batch's rows arrive. Emptied by every commit and rollback.
MAKE_INCOMING: Final = """
CREATE TEMPORARY TABLE usage_incoming (
    run_id uuid, line smallint, settlement_id text, client_id text, correlation_id text, root_id text, task text,
    attempt integer, sku text, quantity bigint, credits bigint, grants jsonb, epoch integer, price_version integer,
    late boolean, mode text, submitted_at bigint, occurred_at bigint
) ON COMMIT DELETE ROWS
"""

#: Keep rebuilds of these shards out until the transaction ends (L6); answers the database's clock. It is a statement
#: of its own, so that the next one sees what a rebuild committed while this one waited.
LOCK_SHARDS: Final = f"""
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
       count(pg_advisory_xact_lock_shared({int(Guard.SHARD)}, shard))
FROM unnest(%s::integer[]) AS shard
"""  # noqa: S608 - a constant number

READ_CLIENTS: Final = "SELECT client_id, shard, epoch FROM client WHERE client_id = ANY(%s::text[])"

COPY_INCOMING: Final = f"COPY usage_incoming ({', '.join(COLUMNS)}) FROM STDIN"

_TO_HISTORY: Final = f"""
INSERT INTO usage_history ({", ".join(COLUMNS)})
SELECT {", ".join(f"incoming.{column}" for column in COLUMNS[:-2])},
       timestamptz 'epoch' + submitted_at * interval '1 millisecond',
       timestamptz 'epoch' + occurred_at * interval '1 millisecond'
FROM usage_incoming AS incoming
"""  # noqa: S608 - constant names of columns

#: Insert the runs that are not there yet, in the order of their ids; answers the ids of those inserted.
INSERT_RUNS: Final = f"""
{_TO_HISTORY}
WHERE line = 0 ORDER BY run_id
ON CONFLICT (run_id, line) DO NOTHING
RETURNING run_id
"""

#: The same for runs of several lines: whoever inserts line 0 owns the run, and inserts the others.
INSERT_RUNS_WITH_LINES: Final = f"""
WITH owned AS ({INSERT_RUNS}),
further AS ({_TO_HISTORY} JOIN owned USING (run_id) WHERE line > 0 ORDER BY run_id, line)
SELECT run_id FROM owned
"""  # noqa: S608 - constants of this file

READ_SETTLEMENTS: Final = """
SELECT run_id, settlement_id, epoch FROM usage_history WHERE run_id = ANY(%s::uuid[]) AND line = 0
"""

#: Of a batch that named a month which the history has not: keep every month where it is until the transaction ends, in
#: the order in which a move takes its locks, and say where each one is.
KEEP_MONTHS: Final = "LOCK TABLE ONLY usage_history, ONLY archive.usage_history IN ACCESS SHARE MODE"
READ_PLACES: Final = "SELECT name, schema, place, first_id, end_id FROM usage_partition"
READ_ARCHIVED: Final = """
SELECT run_id, settlement_id, epoch FROM archive.usage_history WHERE run_id = ANY(%s::uuid[]) AND line = 0
"""

#: What the ledger has left of each grant, in burn order: what has ended or was adjusted away is not there any more.
READ_GRANTS_LEFT: Final = """
WITH asked AS (SELECT unnest(%s::text[]) AS client_id),
     entered AS (SELECT client_id, grant_id, -sum(credits) AS credits FROM ledger_entry JOIN asked USING (client_id)
                 WHERE kind <> 'grant' GROUP BY client_id, grant_id)
SELECT client_id, grant_id, priority, expires_at, skus, voided_at, credits_left
FROM (SELECT client_id, grant_id, priority, expires_at, skus, voided_at,
             (granted.credits - coalesce(spent.credits, 0) - coalesce(entered.credits, 0))::bigint AS credits_left
      FROM asked JOIN credit_grant AS granted USING (client_id)
           LEFT JOIN grant_spent AS spent USING (client_id, grant_id)
           LEFT JOIN entered USING (client_id, grant_id)) AS known
WHERE credits_left > 0
ORDER BY client_id, priority, expires_at NULLS LAST, grant_id
"""

#: Remember which settlements are given back; answers those that were not before.
RETURN_SETTLEMENTS: Final = """
INSERT INTO settlement_returned (run_id, settlement_id, epoch, client_id)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::integer[], %s::text[])
     AS returned (run_id, settlement_id, epoch, client_id) ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
RETURNING run_id, settlement_id, epoch
"""

#: Add to what the buckets are to be told, in key order.
ADD_POSTINGS: Final = ADD.format(added="unnest(%s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[])")

#: Add to the rollups, in key order.
ADD_ROLLUPS: Final = """
INSERT INTO usage_rollup AS rollup (client_id, sku, hour, credits, quantity)
SELECT client_id, sku, timestamptz 'epoch' + hour * interval '1 millisecond', credits, quantity
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
     AS added (client_id, sku, hour, credits, quantity)
ON CONFLICT (client_id, sku, hour) DO UPDATE
SET credits = rollup.credits + excluded.credits, quantity = rollup.quantity + excluded.quantity
"""

#: Add to what each grant has paid, in key order.
ADD_SPENT: Final = """
INSERT INTO grant_spent AS spent (client_id, grant_id, credits)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[])
ON CONFLICT (client_id, grant_id) DO UPDATE SET credits = spent.credits + excluded.credits
"""

#: A client's epoch is at least that of its events: the rebuild that follows begins a later one (L6).
RAISE_EPOCHS: Final = """
UPDATE client SET epoch = seen.epoch
FROM (SELECT client_id, seen.epoch FROM client JOIN unnest(%s::text[], %s::integer[]) AS seen (client_id, epoch)
      USING (client_id) ORDER BY client_id FOR NO KEY UPDATE OF client) AS seen
WHERE client.client_id = seen.client_id AND client.epoch < seen.epoch
"""

#: Ask for rebuilds, in the order of the shards.
REQUEST_REBUILDS: Final = """
INSERT INTO shard_rebuild (shard, reason, requested_at)
SELECT shard, reason, clock_timestamp() FROM unnest(%s::integer[], %s::text[]) AS requested (shard, reason)
ON CONFLICT (shard) DO UPDATE SET reason = excluded.reason, requested_at = excluded.requested_at
"""

ADD_MARKERS: Final = """
INSERT INTO recovery_marker (token, shard)
SELECT * FROM unnest(%s::uuid[], %s::integer[])
ON CONFLICT (token) DO NOTHING
"""
