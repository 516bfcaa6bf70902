"""L2 between the ledger and the bucket: each grant has its one ledger entry, and the bucket has it in full.

A grant that has ended has one entry more, of what expired or was voided: the bucket says the same, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.facts import GrantFacts, LedgerFacts
from billing.reconciliation.report import Discrepancy, Law


def in_ledger(ledger: LedgerFacts) -> Iterator[Discrepancy]:
    """Yield the grants that the ledger's entries do not confirm. Exact: both are of one snapshot."""
    for grant_id, grant in ledger.grants.items():
        if grant.credits is None:
            found = (
                f"{grant.entries:,} ledger entries over {grant.entered:,} credits name a grant that the client has not"
            )
        elif grant.entries != 1 or grant.entered != grant.credits:
            found = f"credit_grant says {grant.credits:,}, {grant.entries:,} ledger entries say {grant.entered:,}"
        else:
            continue
        yield _of(ledger.client_id, grant_id, found)


def in_bucket(balance: Balance, ledger: LedgerFacts) -> Iterator[Discrepancy]:
    """Yield the grants that differ between a bucket and a ledger that was read after it.

    A grant is written to PostgreSQL first: the bucket has none that the ledger lacks. One that is noted as applied
    after the bucket was read looks missing here, and is there in the next reading.
    """
    granted = {grant.grant_id: grant.granted for grant in balance.grants}
    known: Mapping[int, GrantFacts] = ledger.grants
    for grant_id in sorted(granted.keys() | known.keys()):
        in_redis, fact = granted.get(grant_id), known.get(grant_id)
        credits_ = None if fact is None else fact.credits
        on_its_way = in_redis is None and (credits_ is None or fact is None or not fact.applied)
        if in_redis != credits_ and not on_its_way:
            yield _of(balance.client_id, grant_id, f"Redis says {_said(in_redis)}, credit_grant says {_said(credits_)}")
    for grant in balance.grants:
        yield from _ended(balance.client_id, grant, known.get(grant.grant_id))


def _ended(client_id: str, grant: GrantBalance, fact: GrantFacts | None) -> Iterator[Discrepancy]:
    """Yield a grant whose end the bucket does not have as the ledger has it. The bucket's step comes first."""
    if fact is None or fact.ended is None:
        return
    if (grant.expired + grant.voided, grant.available, grant.held) != (fact.ended, 0, 0):
        found = (
            f"ended: Redis says {grant.expired + grant.voided:,} expired or voided, {grant.available:,} available and "
            f"{grant.held:,} held, ledger entries say {fact.ended:,} expired, voided or adjusted away"
        )
        yield _of(client_id, grant.grant_id, found)


def _said(credits_: int | None) -> str:
    return "nothing" if credits_ is None else f"{credits_:,}"


def _of(client_id: str, grant_id: int, found: str) -> Discrepancy:
    return Discrepancy(law=Law.GRANTS.value, client_id=client_id, grant_id=grant_id, found=found)
