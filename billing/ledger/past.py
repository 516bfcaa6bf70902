"""What a client had at a past instant, from the ledger and the log alone. It only reads.

What was held is not in any book: it is in what was left. Usage counts from the moment when its work finished, by
`occurred_at`; a grant's end from its expiry or its void, whenever its entry was made.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

from sqlalchemy import Connection, text


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PastBalance:
    """`left = granted - spent - expired - voided`, holds included; below 0 it is what was owed."""

    client_id: str
    at: datetime
    granted: int
    spent: int
    expired: int
    voided: int
    left: int


_GRANTS = text("""
WITH spent AS (
    SELECT share."grant" AS grant_id, sum(share.credits) AS credits
    FROM usage_history CROSS JOIN LATERAL jsonb_to_recordset(grants) AS share ("grant" bigint, credits bigint)
    WHERE client_id = :client AND occurred_at <= :at GROUP BY 1
), entered AS (
    SELECT grant_id, -sum(credits) FILTER (WHERE kind = 'expire') AS expired,
           -sum(credits) FILTER (WHERE kind = 'void') AS voided,
           -sum(credits) FILTER (WHERE kind = 'adjust' AND created_at <= :at) AS adjusted
    FROM ledger_entry WHERE client_id = :client AND grant_id IS NOT NULL GROUP BY 1
), ending AS (
    SELECT granted.*, coalesce(spent.credits, 0) AS spent, coalesce(adjusted, 0) AS adjusted,
           entered.expired, entered.voided,
           voided_at <= :at AND (expires_at IS NULL OR voided_at < expires_at) AS is_voided,
           expires_at <= :at AS is_expired
    FROM credit_grant AS granted LEFT JOIN spent USING (grant_id) LEFT JOIN entered USING (grant_id)
    WHERE client_id = :client AND granted.created_at <= :at
), judged AS (
    SELECT *, greatest(credits - spent - adjusted, 0) AS rest FROM ending
)
SELECT coalesce(sum(credits), 0)::bigint AS granted,
       coalesce((SELECT sum(credits) FROM spent), 0)::bigint AS spent,
       coalesce(sum(coalesce(expired, rest)) FILTER (WHERE is_expired AND is_voided IS NOT TRUE), 0)::bigint AS expired,
       coalesce(sum(adjusted + CASE WHEN is_voided THEN coalesce(voided, rest) ELSE 0 END), 0)::bigint AS voided,
       coalesce((SELECT -sum(credits) FROM ledger_entry
                 WHERE client_id = :client AND grant_id IS NULL AND kind = 'adjust' AND created_at <= :at), 0)::bigint
           AS adjusted_debt
FROM judged
""")


def past_balance(connection: Connection, client_id: str, at: datetime) -> PastBalance:
    """Return what a client had at an instant. What runs held when their grant ended counts as soon as it is known."""
    row = connection.execute(_GRANTS, {"client": client_id, "at": at}).one()
    voided = row.voided + row.adjusted_debt
    return PastBalance(
        client_id=client_id,
        at=at,
        granted=row.granted,
        spent=row.spent,
        expired=row.expired,
        voided=voided,
        left=row.granted - row.spent - row.expired - voided,
    )
