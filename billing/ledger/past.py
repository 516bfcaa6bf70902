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


#: What debt an ended grant had repaid is known once its end is entered. Until then it is taken that debt is repaid by
#: the oldest grants first, and by none that had ended before.
_GRANTS = text("""
WITH share AS (
    SELECT share."grant" AS grant_id, share.credits, occurred_at
    FROM usage_ever CROSS JOIN LATERAL jsonb_to_recordset(grants) AS share ("grant" bigint, credits bigint)
    WHERE client_id = :client AND occurred_at <= :at
), spent AS (
    SELECT grant_id, sum(credits) AS credits FROM share GROUP BY 1
), adjusted_debt AS (
    SELECT -credits AS credits, created_at FROM ledger_entry
    WHERE client_id = :client AND grant_id IS NULL AND kind = 'adjust' AND created_at <= :at
), debt AS (
    SELECT credits, occurred_at AS since FROM share WHERE grant_id = 0
    UNION ALL SELECT credits, created_at FROM adjusted_debt
), entered AS (
    SELECT grant_id, -sum(credits) FILTER (WHERE kind = 'expire') AS expired,
           -sum(credits) FILTER (WHERE kind = 'void') AS voided,
           -sum(credits) FILTER (WHERE kind = 'adjust' AND created_at <= :at) AS adjusted,
           -sum(credits) FILTER (WHERE kind <> 'grant') AS taken
    FROM ledger_entry WHERE client_id = :client AND grant_id IS NOT NULL GROUP BY 1
), ending AS (
    SELECT granted.grant_id, granted.credits, coalesce(spent.credits, 0) AS spent, coalesce(adjusted, 0) AS adjusted,
           entered.expired, entered.voided, entered.expired IS NOT NULL OR entered.voided IS NOT NULL AS closed,
           granted.credits - coalesce(ever.credits, 0) - entered.taken AS repaid, skus = '{}' AS repays,
           least(expires_at, voided_at) AS ends_at,
           coalesce(voided_at <= :at AND (expires_at IS NULL OR voided_at < expires_at), false) AS is_voided,
           coalesce(expires_at <= :at, false) AS is_expired
    FROM credit_grant AS granted LEFT JOIN spent USING (grant_id) LEFT JOIN entered USING (grant_id)
         LEFT JOIN grant_spent AS ever USING (client_id, grant_id)
    WHERE client_id = :client AND granted.created_at <= :at
), resting AS (
    SELECT *, CASE WHEN closed THEN 0 ELSE greatest(credits - spent - adjusted, 0) END AS rest FROM ending
), older AS (
    SELECT *, sum(CASE WHEN repays THEN rest ELSE 0 END) OVER (ORDER BY grant_id) - rest AS rest_of_older,
           sum(repaid) FILTER (WHERE closed AND repays) OVER () AS repaid_of_closed
    FROM resting
), judged AS (
    SELECT *, rest - CASE WHEN repays THEN least(rest, greatest(0,
           (SELECT coalesce(sum(debt.credits), 0) FROM debt WHERE since < ends_at)
           - coalesce(repaid_of_closed, 0) - rest_of_older)) ELSE 0 END AS lost
    FROM older
)
SELECT coalesce(sum(credits), 0)::bigint AS granted,
       coalesce((SELECT sum(credits) FROM spent), 0)::bigint AS spent,
       coalesce(sum(coalesce(expired, lost)) FILTER (WHERE is_expired AND NOT is_voided), 0)::bigint AS expired,
       coalesce(sum(adjusted + CASE WHEN is_voided THEN coalesce(voided, lost) ELSE 0 END), 0)::bigint AS voided,
       coalesce((SELECT sum(credits) FROM adjusted_debt), 0)::bigint AS adjusted_debt
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
