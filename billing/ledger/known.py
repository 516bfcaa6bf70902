"""What the ledger says of a shard's clients beside amounts, as a rebuild takes it (L6). It only reads."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from billing.credits.plan import LedgerTerms
from billing.credits.terms import ORDINARY, ClientState, ClientTerms
from billing.ledger.grant_terms import bucket_terms

_CLIENTS = text("""
SELECT client_id, state, overdraft_limit FROM client
WHERE shard = :shard AND (state <> 'active' OR overdraft_limit > 0)
""")

_GRANTS = text("""
SELECT own.client_id, own.grant_id, priority, expires_at, skus, voided_at,
       -sum(entry.credits) FILTER (WHERE entry.kind = 'expire') AS expired,
       -sum(entry.credits) FILTER (WHERE entry.kind = 'void') AS voided,
       (array_agg(entry.repaid ORDER BY entry.entry_id DESC)
        FILTER (WHERE entry.kind IN ('expire', 'void')))[1] AS repaid
FROM client, LATERAL (SELECT * FROM credit_grant WHERE client_id = client.client_id OFFSET 0) AS own
     LEFT JOIN ledger_entry AS entry ON entry.client_id = own.client_id AND entry.grant_id = own.grant_id
WHERE shard = :shard
  AND (priority <> 100 OR expires_at IS NOT NULL OR skus <> '{}' OR voided_at IS NOT NULL)
GROUP BY 1, 2, 3, 4, 5, 6
""")

_ADJUSTED = text("""
SELECT client_id, change_id, coalesce(grant_id, 0) AS grant_id, -credits AS credits
FROM ledger_entry JOIN client USING (client_id) WHERE shard = :shard AND kind = 'adjust' ORDER BY change_id, entry_id
""")

_WAITING = text("""
SELECT client_id, change_id, credits FROM client_change JOIN client USING (client_id)
WHERE shard = :shard AND kind = 'adjust' AND applied_at IS NULL ORDER BY change_id
""")


def known_of_shard(connection: Connection, shard: int, now_ms: int) -> Mapping[str, LedgerTerms]:
    """Return the terms of those clients of a shard that have some which are not ordinary."""
    found: dict[str, dict[str, Any]] = collections.defaultdict(
        lambda: {"now_ms": now_ms, "grants": {}, "final": {}, "adjustments": {}, "waiting": [], "repaid_before_end": {}}
    )
    for row in connection.execute(_CLIENTS, {"shard": shard}):
        state = ClientState[row.state.upper()]
        found[row.client_id]["client"] = ClientTerms(state=state, overdraft_limit=row.overdraft_limit)
    for row in connection.execute(_GRANTS, {"shard": shard}):
        terms = bucket_terms(priority=row.priority, expires_at=row.expires_at, skus=row.skus, voided_at=row.voided_at)
        if terms != ORDINARY:
            found[row.client_id]["grants"][row.grant_id] = terms
        if row.expired is not None or row.voided is not None:
            found[row.client_id]["final"][row.grant_id] = (int(row.expired or 0), int(row.voided or 0))
        if row.repaid is not None:
            found[row.client_id]["repaid_before_end"][row.grant_id] = row.repaid
    for row in connection.execute(_ADJUSTED, {"shard": shard}):
        found[row.client_id]["adjustments"].setdefault(row.change_id, {})[row.grant_id] = row.credits
    for row in connection.execute(_WAITING, {"shard": shard}):
        found[row.client_id]["waiting"].append((row.change_id, row.credits))
    return {client_id: LedgerTerms(**values) for client_id, values in found.items()}
