"""The SQL of a reconciliation, by name. Every query takes a slice of clients (`:ids`) and only reads.

Rows that differ are named up to twenty per client and query (L9).
"""

from __future__ import annotations

from typing import Final

#: The next clients in the order of their ids; with `:only` of these alone.
PAGE: Final = """
SELECT client_id FROM client
WHERE client_id > :after AND (CAST(:only AS text[]) IS NULL OR client_id = ANY(:only))
ORDER BY client_id LIMIT :limit
"""

#: Each client's epoch, and whether its shard waits for a rebuild: then log and bucket may differ until it is done.
EPOCHS: Final = """
SELECT client_id, epoch, shard_rebuild.reason AS rebuild
FROM client LEFT JOIN shard_rebuild USING (shard)
WHERE client_id = ANY(:ids)
"""

#: Each grant beside its ledger entries; both ways, so that a grant without an entry and an entry of another client's
#: grant show up alike.
GRANTS: Final = """
SELECT client_id, grant_id, granted.credits, applied_at IS NOT NULL AS applied,
       coalesce(entered.entries, 0) AS entries, coalesce(entered.credits, 0)::bigint AS entered,
       CASE WHEN entered.endings > 0 THEN entered.ended END AS ended
FROM (SELECT client_id, grant_id, credits, applied_at FROM credit_grant WHERE client_id = ANY(:ids)) AS granted
FULL JOIN (SELECT client_id, coalesce(grant_id, 0) AS grant_id, count(*) FILTER (WHERE kind = 'grant') AS entries,
                  sum(credits) FILTER (WHERE kind = 'grant') AS credits,
                  count(*) FILTER (WHERE kind IN ('expire', 'void')) AS endings,
                  (-sum(credits) FILTER (WHERE kind <> 'grant'))::bigint AS ended
           FROM ledger_entry WHERE client_id = ANY(:ids) AND (grant_id IS NOT NULL OR kind = 'grant') GROUP BY 1, 2
          ) AS entered
     USING (client_id, grant_id)
ORDER BY client_id, grant_id
"""

#: What the log's transactions have added up per grant.
SPENT: Final = "SELECT client_id, grant_id, credits FROM grant_spent WHERE client_id = ANY(:ids)"

#: What the bucket of a client's own epoch is to be told besides its settles. What of it the bucket has, it says itself.
POSTINGS: Final = """
SELECT client_id, grant_id, credits, restored, version FROM posting JOIN client USING (client_id, epoch)
WHERE client_id = ANY(:ids)
"""

#: What the log charged not before the bucket was read: (client, since in ms) pairs. The index of (client_id,
#: occurred_at) answers it without reading the rest of the history.
TAIL: Final = """
SELECT history.client_id, (extract(epoch FROM history.occurred_at) * 1000)::bigint AS at_ms, history.epoch,
       share."grant" AS grant_id, sum(share.credits)::bigint AS credits
FROM unnest(CAST(:ids AS text[]), CAST(:since AS bigint[])) AS bucket (client_id, since)
JOIN usage_ever AS history ON history.client_id = bucket.client_id
     AND history.occurred_at >= timestamptz 'epoch' + bucket.since * interval '1 millisecond'
CROSS JOIN LATERAL jsonb_to_recordset(history.grants) AS share ("grant" bigint, credits bigint)
GROUP BY 1, 2, 3, 4
"""

#: What the log itself says each grant has paid.
LOG_GRANTS: Final = """
SELECT client_id, share."grant" AS grant_id, sum(share.credits)::bigint AS credits
FROM usage_ever CROSS JOIN LATERAL jsonb_to_recordset(grants) AS share ("grant" bigint, credits bigint)
WHERE client_id = ANY(:ids)
GROUP BY 1, 2
"""

#: Each client's lines whose grants did not pay what they cost, at most `:most` per client, and how many these are.
LOG_UNPAID: Final = """
WITH paid AS (
    SELECT client_id, run_id, line, credits,
           (SELECT coalesce(sum(share.credits), 0)::bigint
            FROM jsonb_to_recordset(grants) AS share (credits bigint)) AS paid
    FROM usage_ever WHERE client_id = ANY(:ids)
)
SELECT client_id, count(*) AS lines,
       (array_agg(ARRAY[run_id::text, line::text, credits::text, paid::text]
                  ORDER BY run_id, line))[1:CAST(:most AS integer)] AS unpaid
FROM paid WHERE credits <> paid GROUP BY client_id
"""

#: Each client's compensating rows that `usage_correction` does not say the same of, either way, and lines that were
#: corrected by more than they were charged: the bound of the next correction is what that table says. At most `:most`.
LOG_CORRECTIONS: Final = """
WITH logged AS (
    SELECT client_id, run_id, corrects, corrects_line, credits, grants
    FROM usage_ever WHERE client_id = ANY(:ids) AND (corrects IS NOT NULL OR credits < 0)
), kept AS (
    SELECT client_id, run_id, corrects, corrects_line, credits, grants FROM usage_correction WHERE client_id = ANY(:ids)
), differing AS (
    SELECT client_id, run_id
    FROM logged FULL JOIN kept USING (client_id, run_id)
    WHERE (logged.corrects, logged.corrects_line, logged.credits, logged.grants)
          IS DISTINCT FROM (kept.corrects, kept.corrects_line, kept.credits, kept.grants)
    UNION
    SELECT client_id, corrects
    FROM (SELECT client_id, corrects, corrects_line, sum(credits) AS credits FROM logged GROUP BY 1, 2, 3) AS net
    WHERE corrects IS NOT NULL AND NOT EXISTS (
        SELECT FROM usage_ever AS line WHERE line.run_id = net.corrects AND line.line = net.corrects_line
           AND line.client_id = net.client_id AND line.corrects IS NULL AND abs(net.credits) <= line.credits)
)
SELECT client_id, (array_agg(run_id::text ORDER BY run_id))[1:CAST(:most AS integer)] AS corrections
FROM differing GROUP BY client_id
"""

#: Each client's runs, rows and credits, and in `broken` (at most `:most` per client) its runs that are not one
#: settlement with lines from 0 on. Lines are compared per client: a run under two clients would need two lines 0,
#: which the key (run_id, line) does not let in, so that one of the two is broken here.
LOG_RUNS: Final = """
WITH run AS (
    SELECT client_id, run_id, count(*) AS lines, min(line) AS first_line, max(line) AS last_line,
           min(settlement_id) AS settlement, max(settlement_id) AS other_settlement, sum(credits) AS credits
    FROM usage_ever WHERE client_id = ANY(:ids) GROUP BY client_id, run_id
), judged AS (
    SELECT *, first_line <> 0 OR last_line <> lines - 1 OR settlement <> other_settlement AS is_broken FROM run
)
SELECT client_id, count(*) AS runs, sum(lines)::bigint AS rows, sum(credits)::bigint AS credits,
       (array_agg(ARRAY[run_id::text, lines::text, first_line::text, last_line::text, settlement, other_settlement]
                  ORDER BY run_id) FILTER (WHERE is_broken))[1:CAST(:most AS integer)] AS broken
FROM judged GROUP BY client_id
"""

#: Each client's rollups against the log by SKU and hour: how many, their sum, and the rows that differ.
LOG_ROLLUPS: Final = """
WITH logged AS (
    SELECT client_id, sku, date_trunc('hour', occurred_at, 'UTC') AS hour,
           sum(credits)::bigint AS credits, sum(quantity)::bigint AS quantity,
           sum(greatest(0, -credits))::bigint AS returned
    FROM usage_ever WHERE client_id = ANY(:ids) GROUP BY 1, 2, 3
), rolled AS (
    SELECT client_id, sku, hour, credits, quantity, returned FROM usage_rollup WHERE client_id = ANY(:ids)
), both_books AS (
    SELECT client_id, sku, hour, logged.credits AS logged_credits, logged.quantity AS logged_quantity,
           rolled.credits AS rolled_credits, rolled.quantity AS rolled_quantity,
           logged.returned AS logged_returned, rolled.returned AS rolled_returned,
           (logged.credits, logged.quantity, logged.returned)
               IS DISTINCT FROM (rolled.credits, rolled.quantity, rolled.returned) AS differs
    FROM logged FULL JOIN rolled USING (client_id, sku, hour)
)
SELECT client_id, count(rolled_credits) AS rolled_rows, coalesce(sum(rolled_credits), 0)::bigint AS rolled_credits,
       jsonb_path_query_array(jsonb_agg(jsonb_build_object(
            'sku', sku, 'hour', hour, 'logged_credits', logged_credits, 'logged_quantity', logged_quantity,
            'rolled_credits', rolled_credits, 'rolled_quantity', rolled_quantity,
            'logged_returned', logged_returned, 'rolled_returned', rolled_returned) ORDER BY hour, sku)
        FILTER (WHERE differs), '$[0 to 19]') AS differing
FROM both_books GROUP BY client_id
"""

#: What was refused and is not in the log: what a replay has written is.
DEAD_LETTERS: Final = "SELECT count(*) FROM dead_letter WHERE state <> 'replayed'"
