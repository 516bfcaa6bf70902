"""The SQL of the continuous reconciler that the hourly one has no use for, by name."""

from __future__ import annotations

from typing import Final

#: The next clients in the order of their shards: the holds of a shard are then read for a few slices only.
PAGE: Final = """
SELECT client_id, shard FROM client WHERE (shard, client_id) > (:shard, :after) ORDER BY shard, client_id LIMIT :limit
"""

CLIENTS: Final = "SELECT count(*) FROM client"

#: Those of some clients whose rollups do not add up to what grants have paid (and debt), all of it in one snapshot.
DIFFERING_SUMS: Final = """
SELECT client_id, coalesce(rolled.credits, 0)::bigint AS rolled, coalesce(spent.credits, 0)::bigint AS spent
FROM unnest(CAST(:ids AS text[])) AS asked (client_id)
LEFT JOIN (SELECT client_id, sum(credits) AS credits FROM usage_rollup WHERE client_id = ANY(:ids) GROUP BY client_id
          ) AS rolled USING (client_id)
LEFT JOIN (SELECT client_id, sum(credits) AS credits FROM grant_spent WHERE client_id = ANY(:ids) GROUP BY client_id
          ) AS spent USING (client_id)
WHERE coalesce(rolled.credits, 0) <> coalesce(spent.credits, 0)
"""
