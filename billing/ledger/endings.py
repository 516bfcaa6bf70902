"""How grants end in the ledger: one entry per grant, of what expired or was voided, once no hold refers to it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from billing.credits.granting import Lapsed

#: Entered once per grant and kind; also of nothing, which says that the grant is closed and what it paid is final.
_ENTER = text("""
INSERT INTO ledger_entry (client_id, grant_id, kind, credits)
SELECT client_id, grant_id, ending.kind, -ending.credits
FROM unnest(CAST(:clients AS text[]), CAST(:grants AS bigint[]), CAST(:expired AS bigint[]), CAST(:voided AS bigint[]))
     AS lapsed (client_id, grant_id, expired, voided)
JOIN credit_grant USING (client_id, grant_id)
CROSS JOIN LATERAL (VALUES ('expire', lapsed.expired), ('void', lapsed.voided)) AS ending (kind, credits)
WHERE ending.credits > 0
   OR lapsed.expired + lapsed.voided = 0 AND (ending.kind = 'void') = (voided_at IS NOT NULL)
ORDER BY grant_id, ending.kind
ON CONFLICT DO NOTHING
""")


def enter_endings(connection: Connection, lapsed: Sequence[Lapsed]) -> None:
    """Enter the final amounts of grants that have ended. Idempotent: the first entry stays."""
    connection.execute(
        _ENTER,
        {
            "clients": [one.client_id for one in lapsed],
            "grants": [one.grant_id for one in lapsed],
            "expired": [one.expired for one in lapsed],
            "voided": [one.voided for one in lapsed],
        },
    )
