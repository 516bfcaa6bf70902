"""L2 inside Redis: a bucket adds up by itself, per client and per grant.

It is read in one step, so that there is no moment at which it may not: what differs, differs.
"""

from __future__ import annotations

from collections.abc import Iterator

from billing.credits.auditing import BucketReading
from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.report import Discrepancy, Law


def differences(reading: BucketReading) -> Iterator[Discrepancy]:
    """Yield what does not add up within a bucket."""
    if reading.unreadable:
        yield _of(reading.client_id, f"the bucket cannot be read: {reading.unreadable}")
    if reading.balance is None:
        return
    balance = reading.balance
    for grant in balance.grants:
        yield from _of_grant(balance.client_id, grant)
    unknown = set(balance.order) - {grant.grant_id for grant in balance.grants}
    for grant_id in sorted(unknown):
        yield _of(balance.client_id, "pays in the bucket's string, and was never granted to it", grant_id)
    # With a grant that differs, or one that is left out, the sum differs for that reason.
    if balance.granted + balance.owed != balance.available + balance.held + balance.spent:
        found = (
            f"granted {balance.granted:,} + owed {balance.owed:,} is not available {balance.available:,} "
            f"+ held {balance.held:,} + spent {balance.spent:,}"
        )
        yield _of(balance.client_id, found)
    if balance.owed and balance.available:
        found = f"{balance.owed:,} are owed, though {balance.available:,} are available to pay them"
        yield _of(balance.client_id, found)


def _of_grant(client_id: str, grant: GrantBalance) -> Iterator[Discrepancy]:
    if grant.granted != grant.available + grant.held + grant.spent + grant.repaid:
        found = (
            f"granted {grant.granted:,} is not available {grant.available:,} + held {grant.held:,} "
            f"+ spent {grant.spent:,} + repaid {grant.repaid:,}"
        )
        yield _of(client_id, found, grant.grant_id)
    below = [name for name in ("available", "held", "spent", "repaid") if getattr(grant, name) < 0]
    if below:
        yield _of(client_id, f"{' and '.join(below)} below zero", grant.grant_id)


def of_sums(balance: Balance) -> dict[str, int]:
    """Return what the law has compared of a bucket."""
    return {
        "clients": 1,
        "grants": len(balance.grants),
        "granted": balance.granted,
        "owed": balance.owed,
        "available": balance.available,
        "held": balance.held,
        "spent": balance.spent,
    }


def _of(client_id: str, found: str, grant_id: int | None = None) -> Discrepancy:
    return Discrepancy(law=Law.BUCKET.value, client_id=client_id, grant_id=grant_id, found=found)
