"""The terms of grants in the ledger: which end when, and what the ledger has of their ends.

As `billing.ledger` keeps them: an end is entered once no hold refers to the grant, what comes back later is entered
too, and a rebuild plans with both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from billing.credits.granting import Lapsed
from billing.credits.plan import LedgerTerms
from billing.credits.terms import ORDINARY
from billing.credits.values import StoredHold

if TYPE_CHECKING:
    from tests.simulation.log import GrantRow, Log


class Endings:
    """What the ledger says of grants beside their amounts."""

    def __init__(self) -> None:
        #: Grant to what expired of it, what was voided, and what debt it had repaid.
        self.final: dict[int, tuple[int, int, int]] = {}
        #: Voids that no bucket has, the oldest first.
        self.voids: dict[int, None] = {}

    def void(self, row: GrantRow, now_ms: int) -> None:
        """Take a grant back; its bucket learns of it later."""
        if not row.terms.ended_at(now_ms):
            row.terms = dataclasses.replace(row.terms, voided_ms=now_ms)
            self.voids[row.grant_id] = None

    def enter(self, lapsed: Sequence[Lapsed]) -> None:
        """Enter final amounts, as far as they are not."""
        for one in lapsed:
            expired, voided, _ = self.final.get(one.grant_id, (0, 0, 0))
            self.final[one.grant_id] = max(expired, one.expired), max(voided, one.voided), one.repaid

    def entered(self, grant_id: int) -> int:
        """Return what the ledger has of a grant's end."""
        return sum(self.final.get(grant_id, (0, 0))[:2])

    def known(
        self, log: Log, client_id: str, now_ms: int, holds: Sequence[StoredHold], repaid: Mapping[int, int]
    ) -> LedgerTerms | None:
        """Return what a rebuild has to know of a client."""
        terms = {row.grant_id: row.terms for row in log.grants_of(client_id) if row.terms != ORDINARY}
        if not terms and not repaid:
            return None
        final = {grant: self.final[grant] for grant in terms if grant in self.final}
        return LedgerTerms(
            now_ms=now_ms,
            grants=terms,
            final={grant: amounts[:2] for grant, amounts in final.items()},
            repaid_before_end={grant: amounts[2] for grant, amounts in final.items()},
            claims={hold.run_id: (hold.sku, hold.created_ms) for hold in holds},
            repaid=repaid,
        )

    def lapse(self, log: Log, buckets: Any, shard: int) -> None:
        """End what is over: in the bucket first, in the ledger second (`billing.recovery.lapsing`)."""
        if not buckets.endings_due([shard]):
            return
        with log.lock(shard):
            waiting = {
                (client_id, grant)
                for (client_id, epoch, grant), total in log.totals.items()
                if total.applied < total.version and epoch == log.epochs[client_id]
            }
            lapsed = buckets.lapse(shard, 200)
            final = [one for one in lapsed if (one.client_id, one.grant_id) not in waiting]
            self.enter(final)
        buckets.forget_lapsed(final)
