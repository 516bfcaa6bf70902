"""Plans a bucket from the ledger and the log: pure, and the same answer for the same facts, whoever rebuilds (L6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from billing.credits.values import GrantBalance


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketPlan:
    """A bucket as it is to be written: usable grants in burn order, and what each surviving hold is lent."""

    grants: tuple[GrantBalance, ...]
    order: tuple[int, ...]
    debt: int
    owed: int
    holds: Mapping[UUID, Mapping[int, int]]

    def bucket(self) -> str:
        """Return the bucket's string, its epoch apart."""
        balances = {grant.grant_id: grant for grant in self.grants}
        usable = (balances[grant] for grant in self.order)
        entries = (f"{grant.grant_id}:{grant.available}:{grant.held}:{grant.spent}" for grant in usable)
        return " ".join((str(self.owed), *entries))

    def fields(self) -> dict[str, int]:
        """Return the fields of the grants' hash; numbers that are 0 are left out."""
        numbers = {"s:0": self.debt}
        usable = set(self.order)
        for grant in self.grants:
            numbers[f"g:{grant.grant_id}"] = grant.granted
            numbers[f"r:{grant.grant_id}"] = grant.repaid
            if grant.grant_id not in usable:
                numbers[f"s:{grant.grant_id}"] = grant.spent
        return {field: number for field, number in numbers.items() if number}


def plan_bucket(
    *,
    grants: Sequence[tuple[int, int]],
    spent: Mapping[int, int],
    holds: Sequence[tuple[UUID, int]],
) -> BucketPlan:
    """Return the bucket that the facts add up to.

    `grants`: (grant id, granted) in burn order. `spent`: what the log says each grant paid; under 0, what nothing had
    covered. `holds`: (run id, credits) of the surviving holds, oldest run first. Holds come before debt, as they do in
    a live bucket; what then remains pays debt, in burn order. What the log says beyond a grant's amount, or of a grant
    that is not in the ledger, is debt: the sum of what was spent is never changed.
    """
    granted = dict(grants)
    paid = {grant: min(credits_, spent.get(grant, 0)) for grant, credits_ in grants}
    debt = sum(spent.values()) - sum(paid.values())
    available = {grant: credits_ - paid[grant] for grant, credits_ in grants}
    held = dict.fromkeys(granted, 0)
    repaid = dict.fromkeys(granted, 0)

    lent: dict[UUID, dict[int, int]] = {}
    for run_id, need in holds:
        shares: dict[int, int] = {}
        left = need
        for grant in granted:
            part = min(left, available[grant])
            if part:
                shares[grant] = part
                available[grant] -= part
                held[grant] += part
                left -= part
        lent[run_id] = shares

    owed = debt
    for grant in granted:
        repaid[grant] = min(owed, available[grant])
        available[grant] -= repaid[grant]
        owed -= repaid[grant]

    balances = tuple(
        GrantBalance(
            grant_id=grant,
            granted=credits_,
            available=available[grant],
            held=held[grant],
            spent=paid[grant],
            repaid=repaid[grant],
        )
        for grant, credits_ in grants
    )
    usable = tuple(grant for grant in granted if available[grant] or held[grant])
    return BucketPlan(grants=balances, order=usable, debt=debt, owed=owed, holds=lent)
