"""L2 between the bucket and the log: what each grant has paid, to the unit, on a fleet that does not stand still.

The bucket was read at a moment T of Redis' clock; every event of the log carries the moment of its settle, by the same
clock. So the bucket equals the log without what was settled after T, as soon as what was settled before has arrived:
an equality, not a range. Only an event of the very millisecond T could be on either side.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping

from billing.core.credits import NO_GRANT
from billing.credits.values import Balance
from billing.reconciliation.facts import LedgerFacts
from billing.reconciliation.report import Discrepancy, Law


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """What the log says was spent when the bucket was read; `unsure`: settled in that very millisecond."""

    spent: Mapping[int, int]
    unsure: Mapping[int, int]


def cut(ledger: LedgerFacts, at_ms: int) -> Cut:
    """Return what the log says each grant had paid at a moment.

    Events of older epochs, and direct ones, count whenever they were settled: a rebuild or a posting brings them.
    """
    spent, unsure = collections.Counter(ledger.spent), collections.Counter[int]()
    for charged in ledger.tail:
        if charged.epoch == ledger.epoch and charged.at_ms >= at_ms:
            spent.subtract(charged.grants)
            if charged.at_ms == at_ms:
                unsure.update(charged.grants)
    return Cut(spent=spent, unsure=unsure)


def differences(balance: Balance, ledger: LedgerFacts, at_ms: int) -> Iterator[Discrepancy]:
    """Yield the grants whose spending differs at a moment. Empty too if only that very millisecond is in question.

    A bucket says apart what the log has beyond what a grant had (`beyond`), and what was posted to it; what is still to
    be posted is in the log, or was taken twice, and is no difference.
    """
    of_log, in_redis, waits = cut(ledger, at_ms), of_bucket(balance), waiting(balance, ledger)
    for grant_id in sorted(in_redis.keys() | of_log.spent.keys() | of_log.unsure.keys() | waits.keys()):
        said, wait = in_redis.get(grant_id, 0), waits.get(grant_id, 0)
        low = of_log.spent[grant_id] - wait
        high = low + of_log.unsure[grant_id]
        if not min(low, high) <= said <= max(low, high):
            name = "debt" if grant_id == NO_GRANT else "spent"
            found = f"{name}: Redis says {said:,}, the log's grant_spent says {high + wait:,}"
            found += f", {wait:+,} of it not posted yet" if wait else ""
            row = {"table": "grant_spent", "client_id": balance.client_id, "grant_id": grant_id, "at this moment": high}
            yield Discrepancy(
                law=Law.SPENT.value,
                client_id=balance.client_id,
                grant_id=grant_id,
                found=found,
                rows=(row,),
                differs_by=said - high if low == high else None,
            )


def waiting(balance: Balance, ledger: LedgerFacts) -> dict[int, int]:
    """Return what is posted to each grant in PostgreSQL and not in the bucket."""
    seen = {grant: posted.credits for grant, posted in balance.posted.items()}
    waits = {grant: ledger.posted.get(grant, 0) - seen.get(grant, 0) for grant in ledger.posted.keys() | seen.keys()}
    return {grant: credits_ for grant, credits_ in waits.items() if credits_}


def of_bucket(balance: Balance) -> dict[int, int]:
    """Return what the bucket says that the log has of each grant."""
    said = collections.Counter({grant.grant_id: grant.spent for grant in balance.grants})
    said.update(balance.beyond)
    said[NO_GRANT] = balance.debt - sum(balance.beyond.values())
    return said
