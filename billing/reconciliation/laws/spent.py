"""L2 between the bucket and the log: what each grant has paid, to the unit, on a fleet that does not stand still.

The bucket was read at a moment T of Redis' clock; every event of the log carries the moment of its settle, by the same
clock. So the bucket equals the log without what was settled after T, as soon as what was settled before has arrived:
an equality, not a range. Only an event of the very millisecond T could be on either side.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping

from billing.credits.values import Balance
from billing.reconciliation.facts import DEBT, LedgerFacts
from billing.reconciliation.report import Discrepancy, Law


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """What the log says was spent when the bucket was read; `unsure`: settled in that very millisecond."""

    spent: Mapping[int, int]
    unsure: Mapping[int, int]


def cut(ledger: LedgerFacts, at_ms: int) -> Cut:
    """Return what the log says each grant had paid at a moment.

    Events of older epochs, and direct ones, count whenever they were settled: a rebuild has put them into the bucket.
    """
    spent, unsure = collections.Counter(ledger.spent), collections.Counter[int]()
    for charged in ledger.tail:
        if charged.epoch == ledger.epoch and charged.at_ms >= at_ms:
            spent.subtract(charged.grants)
            if charged.at_ms == at_ms:
                unsure.update(charged.grants)
    return Cut(spent=spent, unsure=unsure)


def differences(balance: Balance, ledger: LedgerFacts, at_ms: int) -> Iterator[Discrepancy]:
    """Yield the grants whose spending differs at a moment. Empty too if only that very millisecond is in question."""
    of_log = cut(ledger, at_ms)
    with_unsure = collections.Counter(of_log.spent)
    with_unsure.update(of_log.unsure)
    least, most = _as_bucket(of_log.spent, ledger), _as_bucket(with_unsure, ledger)
    in_redis = {grant.grant_id: grant.spent for grant in balance.grants} | {DEBT: balance.debt}
    for grant_id in sorted(in_redis.keys() | least.keys() | most.keys()):
        said, low, high = (spent.get(grant_id, 0) for spent in (in_redis, least, most))
        if not min(low, high) <= said <= max(low, high):
            name = "debt" if grant_id == DEBT else "spent"
            found = f"{name}: Redis says {said:,}, the log's grant_spent says {high:,}"
            row = {"table": "grant_spent", "client_id": balance.client_id, "grant_id": grant_id, "at this moment": high}
            yield Discrepancy(
                law=Law.SPENT.value,
                client_id=balance.client_id,
                grant_id=grant_id,
                found=found,
                rows=(row,),
                differs_by=said - high if low == high else None,
            )


def _as_bucket(spent: Mapping[int, int], ledger: LedgerFacts) -> dict[int, int]:
    """Return what a bucket says of this: what the log has beyond a grant's amount is debt in it, as in a rebuild."""
    paid = {
        grant_id: min(grant.credits, spent.get(grant_id, 0))
        for grant_id, grant in ledger.grants.items()
        if grant.credits is not None
    }
    return paid | {DEBT: sum(spent.values()) - sum(paid.values())}
