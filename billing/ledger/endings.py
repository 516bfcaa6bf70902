"""How grants end in the ledger: an entry of what expired or was voided, once no hold refers to the grant.

An entry is never changed: what a posting gives back to a grant whose end was entered already is a further one. A client
with an adjustment that the ledger has not entered waits: it may have taken a part of the very grant, and a rebuild that
knew of the end alone would have it taken twice. An entry also tells what debt the grant had repaid, so that a rebuild
tells that from what came back to the grant since, which repays none.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from billing.credits.granting import Lapsed

#: One at a time enters a grant's end, so that it finds what was entered before.
_LOCK = text("""
SELECT grant_id FROM credit_grant WHERE grant_id = ANY(:grants) ORDER BY grant_id FOR NO KEY UPDATE
""")

_ADJUSTED = text("""
SELECT DISTINCT client_id FROM client_change
WHERE kind = 'adjust' AND applied_at IS NULL AND client_id = ANY(:clients)
""")

#: Entered per grant and kind, as far as it is not; also of nothing, which says that the grant is closed.
_ENTER = text("""
INSERT INTO ledger_entry (client_id, grant_id, kind, credits, repaid)
SELECT client_id, grant_id, ending.kind, entered.credits - ending.credits, lapsed.repaid
FROM unnest(CAST(:clients AS text[]), CAST(:grants AS bigint[]), CAST(:expired AS bigint[]), CAST(:voided AS bigint[]),
            CAST(:repaid AS bigint[])) AS lapsed (client_id, grant_id, expired, voided, repaid)
JOIN credit_grant USING (client_id, grant_id)
CROSS JOIN LATERAL (VALUES ('expire', lapsed.expired), ('void', lapsed.voided)) AS ending (kind, credits)
CROSS JOIN LATERAL (
    SELECT -coalesce(sum(entry.credits) FILTER (WHERE entry.kind = ending.kind), 0)::bigint AS credits,
           count(*) AS entries
    FROM ledger_entry AS entry WHERE entry.grant_id = lapsed.grant_id AND entry.kind IN ('expire', 'void')
) AS entered
WHERE ending.credits > entered.credits
   OR lapsed.expired + lapsed.voided = 0 AND entered.entries = 0 AND (ending.kind = 'void') = (voided_at IS NOT NULL)
ORDER BY grant_id, ending.kind
""")


def enter_endings(connection: Connection, lapsed: Sequence[Lapsed]) -> list[Lapsed]:
    """Enter the final amounts of grants that have ended; return those that the ledger has now. Idempotent."""
    clients = sorted({one.client_id for one in lapsed})
    waiting = set(connection.execute(_ADJUSTED, {"clients": clients}).scalars())
    entered = [one for one in lapsed if one.client_id not in waiting]
    grants = [one.grant_id for one in entered]
    connection.execute(_LOCK, {"grants": grants})
    connection.execute(
        _ENTER,
        {
            "clients": [one.client_id for one in entered],
            "grants": grants,
            "expired": [one.expired for one in entered],
            "voided": [one.voided for one in entered],
            "repaid": [one.repaid for one in entered],
        },
    )
    return entered
