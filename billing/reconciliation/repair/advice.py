"""What a person must do about what is never repaired by itself: the ledger, the log and Stripe are no sums of ours."""

from __future__ import annotations

from typing import Final

from billing.reconciliation.report import Law

#: Laws whose discrepancies may lie in a bucket, where a posting or a rebuild mends them.
OF_BUCKETS: Final = frozenset({Law.BUCKET.value, Law.HOLDS.value, Law.SPENT.value, Law.GRANTS.value})

#: Discrepancies within PostgreSQL by which the log itself is in doubt: nothing is posted to such a client.
IN_DOUBT: Final = frozenset({Law.ONE_CHARGE.value, Law.SUMS.value})

ADVICE: Final = {
    Law.GRANTS.value: (
        "credit_grant and ledger_entry say different things: find who wrote to them, then correct by a new entry "
        "(billing grant, billing adjust credits)"
    ),
    Law.ONE_CHARGE.value: (
        "rows of usage_history are missing or of two settlements, though nobody may change them: find who did, and "
        "restore them from a backup"
    ),
    Law.SUMS.value: (
        "usage_history and its sums differ: find who wrote to them; if the log is whole, set usage_rollup and "
        "grant_spent to its sums, with the consumer stopped"
    ),
    Law.PLANNED.value: "increments do not tile the rollups: see billing sync show, before the next push",
    Law.STRIPE.value: "see billing sync show for this period; a correction at Stripe is a credit note",
    Law.ORPHANS.value: "start a worker with --fulfillment: its reaper resolves the hold",
}
