"""L2 inside Redis: a bucket adds up by itself, per client and per grant.

It is read in one step, so that there is no moment at which it may not: what differs, differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from billing.credits.auditing import BucketReading
from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.report import Discrepancy, Law

_ACCOUNTS: Final = ("available", "held", "spent", "repaid", "expired", "voided")


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
    used = balance.available + balance.held + balance.spent + balance.expired + balance.voided
    if balance.granted + balance.owed != used:
        found = (
            f"granted {balance.granted:,} + owed {balance.owed:,} is not available {balance.available:,} "
            f"+ held {balance.held:,} + spent {balance.spent:,}" + _ended(balance)
        )
        yield _of(balance.client_id, found, differs_by=balance.granted + balance.owed - used)
    # Overdraft room is owed for as long as its hold lives, and a grant for some SKUs pays no debt.
    debt, can_pay = balance.owed - balance.room, _can_pay(balance)
    if debt and can_pay:
        found = f"{debt:,} are owed, though {can_pay:,} are available to pay them"
        yield _of(balance.client_id, found)


def _can_pay(balance: Balance) -> int:
    restricted = {grant_id for grant_id, terms in balance.grant_terms.items() if terms.skus}
    return sum(grant.available for grant in balance.grants if grant.grant_id not in restricted)


def _ended(sums: Balance | GrantBalance) -> str:
    """Say what has ended, where something has."""
    return f" + expired {sums.expired:,} + voided {sums.voided:,}" if sums.expired or sums.voided else ""


def _of_grant(client_id: str, grant: GrantBalance) -> Iterator[Discrepancy]:
    used = grant.available + grant.held + grant.spent + grant.repaid + grant.expired + grant.voided
    if grant.granted != used:
        found = (
            f"granted {grant.granted:,} is not available {grant.available:,} + held {grant.held:,} "
            f"+ spent {grant.spent:,} + repaid {grant.repaid:,}" + _ended(grant)
        )
        yield _of(client_id, found, grant.grant_id, differs_by=grant.granted - used)
    below = [name for name in _ACCOUNTS if getattr(grant, name) < 0]
    if below:
        yield _of(client_id, f"{' and '.join(below)} below zero", grant.grant_id)


def of_sums(balance: Balance) -> dict[str, int]:
    """Return what the law has compared of a bucket."""
    sums = {
        "clients": 1,
        "grants": len(balance.grants),
        "granted": balance.granted,
        "owed": balance.owed,
        "available": balance.available,
        "held": balance.held,
        "spent": balance.spent,
    }
    # What only terms bring about is told where there is some.
    ended = {"expired": balance.expired, "voided": balance.voided}
    return sums | {name: credits_ for name, credits_ in ended.items() if credits_}


def _of(client_id: str, found: str, grant_id: int | None = None, *, differs_by: int | None = None) -> Discrepancy:
    return Discrepancy(law=Law.BUCKET.value, client_id=client_id, grant_id=grant_id, found=found, differs_by=differs_by)
