"""What PostgreSQL has, in memory: the log of `make simulate`, with the ledger's voids, adjustments, ends and terms.

It gives a rebuild the facts that `billing.ledger.known` and `billing.recovery.facts` read. Pure.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from billing.credits.granting import Lapsed
from billing.credits.plan import BucketPlan, LedgerTerms
from billing.credits.posting import Posting
from billing.credits.rebuilding import plan_bucket
from billing.credits.terms import ORDINARY, ClientTerms
from billing.credits.values import StoredHold
from billing.fulfillment.decoder import decode
from billing.fulfillment.delivery import Delivered
from tests.contract.faulty.values import SHARDS, Breach, Row
from tests.simulation.log import GrantRow, Log


class Ledger:
    """Grants and changes of clients, and the log of their runs."""

    def __init__(self) -> None:
        self.log = Log(shards=SHARDS)
        self.adjustments: defaultdict[str, dict[int, Row]] = defaultdict(dict)
        self._terms: dict[str, Row] = {}
        #: The largest overdraft limit that a client ever had.
        self.limits: defaultdict[str, int] = defaultdict(int)
        #: By client and grant, what expired and what was voided once nothing referred to it.
        self.final: defaultdict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
        #: By client and grant, what debt it had repaid when its end was entered.
        self._repaid: defaultdict[str, dict[int, int]] = defaultdict(dict)
        #: How many events came, and how many of them became a row.
        self.events = self.rows = 0

    def enter(self, rows: Iterable[Row]) -> None:
        """Take rows as they are now. Raises `Breach` where an adjustment took something else than before."""
        for row in rows:
            match row.kind:
                case "grant":
                    known = self.log.grants.get(row.grant_id)
                    if known is None:
                        known = GrantRow(
                            grant_id=row.grant_id, client_id=row.client_id, credits=row.credits, terms=row.terms
                        )
                        self.log.take(known)
                    known.applied = known.applied or row.applied
                case "void":
                    grant = self.log.grants[row.grant_id]
                    if not grant.terms.voided_ms:
                        grant.terms = dataclasses.replace(grant.terms, voided_ms=row.at_ms)
                case "adjust":
                    self._enter_adjustment(row)
                case _:
                    before = self._terms.get(row.client_id)
                    if before is None or before.row_id <= row.row_id:
                        self._terms[row.client_id] = row
                    self.limits[row.client_id] = max(self.limits[row.client_id], row.client.overdraft_limit)

    def _enter_adjustment(self, row: Row) -> None:
        entered = self.adjustments[row.client_id].get(row.row_id)
        if entered is None or not entered.applied:
            self.adjustments[row.client_id][row.row_id] = row
        elif row.applied and row.shares != entered.shares:
            message = f"L2: {row} took {row.shares}, and is entered as {entered.shares}"
            raise Breach(message)

    def write(self, bodies: Sequence[bytes], now_ms: int) -> None:
        """Write a batch of usage events. Raises `Breach` for what the log refuses."""
        self.events += len(bodies)
        before = len(self.log.history)
        self.log.write([Delivered(body=body, queue="usage", decoded=decode(body)) for body in bodies], now_ms)
        self.rows += len(self.log.history) - before
        if self.log.letters:
            message = f"L3: refused by the log: {self.log.letters[0]}"
            raise Breach(message)

    def has_waiting_adjustment(self, client_id: str) -> bool:
        """Whether there is an adjustment whose shares are not entered: a grant's end then waits."""
        return any(not row.applied for row in self.adjustments[client_id].values())

    def waiting(self) -> dict[tuple[str, int], list[Posting]]:
        """Return what is not in its bucket yet, by client and epoch, with what is entered of each grant's end."""
        return {
            key: [dataclasses.replace(row, entered=sum(self.final[key[0]].get(row.grant_id, ()))) for row in rows]
            for key, rows in self.log.waiting().items()
        }

    def end(self, lapsed: Iterable[Lapsed]) -> list[Lapsed]:
        """Enter the final amounts of grants that nothing waits for; return those that the ledger has now."""
        posted_to = {(key[0], row.grant_id) for key, rows in self.log.waiting().items() for row in rows}
        entered = [
            one
            for one in lapsed
            if not self.has_waiting_adjustment(one.client_id) and (one.client_id, one.grant_id) not in posted_to
        ]
        for one in entered:
            known = self.final[one.client_id].get(one.grant_id)
            expired, voided = known or (0, 0)
            self.final[one.client_id][one.grant_id] = max(expired, one.expired), max(voided, one.voided)
            if self.final[one.client_id][one.grant_id] != known:
                self._repaid[one.client_id][one.grant_id] = one.repaid
        return entered

    def plan(self, client_id: str, holds: Sequence[StoredHold], repaid: Mapping[int, int], now_ms: int) -> BucketPlan:
        """Plan a client's bucket, and enter what the plan brings into it as done."""
        grants = self.log.grants_of(client_id)
        own = sorted(self.adjustments[client_id].items())
        known = LedgerTerms(
            now_ms=now_ms,
            client=self._terms[client_id].client if client_id in self._terms else ClientTerms(),
            grants={row.grant_id: row.terms for row in grants if row.terms != ORDINARY},
            final=self.final[client_id],
            repaid_before_end=self._repaid[client_id],
            adjustments={row_id: row.shares for row_id, row in own if row.applied},
            waiting=[(row_id, row.credits) for row_id, row in own if not row.applied],
            claims={hold.run_id: (hold.sku, hold.created_ms) for hold in holds},
            repaid=repaid,
        )
        plan = plan_bucket(
            grants=[(row.grant_id, row.credits) for row in grants],
            spent=self.log.spent[client_id],
            holds=[(hold.run_id, hold.credits) for hold in holds],
            lent={hold.run_id: hold.grants for hold in holds},
            known=known,
        )
        for row_id, _ in known.waiting:
            row = self.adjustments[client_id][row_id]
            self.adjustments[client_id][row_id] = dataclasses.replace(
                row, applied=True, shares=dict(plan.adjusted[row_id])
            )
        return plan

    def forget(self, hot: str, holding: Iterable[UUID]) -> None:
        """Forget every client but one, and of that one the runs that hold nothing; what they paid stays."""
        log, kept = self.log, set(holding)
        log.epochs = {hot: log.epochs[hot]}
        log.spent = {hot: log.spent[hot]}
        log.forget_grants(but_of=hot)
        log.history = {run: event for run, event in log.history.items() if run in kept and event.client_id == hot}
        log.totals = {key: total for key, total in log.totals.items() if key[0] == hot and key[1] == log.epochs[hot]}
        for known in (self.adjustments, self._terms, self.limits, self.final, self._repaid):
            for client_id in [name for name in known if name != hot]:
                del known[client_id]
