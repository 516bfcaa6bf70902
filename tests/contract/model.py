"""What buckets must do, in plain Python, written apart from the scripts: the oracle of the random walks.

One hold is a list of (grant, credits), one bucket a handful of dicts. No Redis, no cleverness.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from billing.credits.values import Balance, GrantBalance, Hold, Settlement


@dataclass
class ModelHold:
    """A run that is held."""

    client_id: str
    sku: str
    token: str
    credits: int
    price_version: int
    shares: dict[int, int]


@dataclass
class ModelBucket:
    """A client's credits, by grant."""

    granted: dict[int, int] = field(default_factory=dict)
    available: dict[int, int] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    repaid: dict[int, int] = field(default_factory=dict)
    debt: int = 0
    owed: int = 0

    def put_back(self, grant: int, credits_: int) -> None:
        """Credits come to a grant: debt is paid first."""
        pays = min(self.owed, credits_)
        self.owed -= pays
        self.repaid[grant] += pays
        self.available[grant] += credits_ - pays

    def borrow(self, need: int) -> dict[int, int]:
        """Take up to `need` from what is available, lowest grant first."""
        taken = {}
        for grant in sorted(self.available):
            part = min(need, self.available[grant])
            if part:
                self.available[grant] -= part
                taken[grant] = part
                need -= part
        return taken


class Model:
    """Buckets and runs."""

    def __init__(self) -> None:
        self.buckets: dict[str, ModelBucket] = {}
        self.holds: dict[UUID, ModelHold] = {}
        self.settled: dict[UUID, str] = {}

    def grant(self, client_id: str, grant_id: int, credits_: int) -> str:
        """Add an allotment."""
        bucket = self.buckets.get(client_id)
        if bucket is None:
            return "UNKNOWN_CLIENT"
        if grant_id in bucket.granted:
            return "ALREADY" if bucket.granted[grant_id] == credits_ else "CONFLICT"
        bucket.granted[grant_id] = credits_
        for part in (bucket.available, bucket.held, bucket.spent, bucket.repaid):
            part[grant_id] = 0
        bucket.put_back(grant_id, credits_)
        return "GRANTED"

    def reserve(self, hold: Hold) -> tuple[str, int]:
        """Hold credits; answers the outcome and what is held or was available."""
        if hold.run_id in self.settled:
            return "SETTLED", 0
        found = self.holds.get(hold.run_id)
        if found is not None and (found.client_id, found.sku) != (hold.client_id, hold.sku):
            return "CONFLICT", 0
        bucket = self.buckets.get(hold.client_id)
        if bucket is None:
            return "UNKNOWN_CLIENT", 0
        has = sum(found.shares.values()) if found else 0
        need = max(0, hold.credits - has)
        usable = sum(bucket.available.values())
        if need > usable or (bucket.owed and (need or found is None)):
            return "INSUFFICIENT", usable + has
        taken = bucket.borrow(need)
        for grant, part in taken.items():
            bucket.held[grant] += part
        if found is None:
            self.holds[hold.run_id] = ModelHold(
                hold.client_id, hold.sku, hold.token, hold.credits, hold.price_version, taken
            )
            return "HELD", hold.credits
        for grant, part in taken.items():
            found.shares[grant] = found.shares.get(grant, 0) + part
        found.token = hold.token
        return "TAKEN_OVER", has + need

    def settle(self, settlement: Settlement) -> tuple[str, bool, int]:
        """Charge a run; answers the outcome, whether it was late, and the debt."""
        if settlement.run_id in self.settled:
            return "ALREADY", False, 0
        bucket = self.buckets.get(settlement.client_id)
        if bucket is None:
            return "UNKNOWN_CLIENT", False, 0
        found = self.holds.pop(settlement.run_id, None)
        actual = sum(settlement.amounts)
        for grant, part in (found.shares if found else {}).items():
            bucket.held[grant] -= part
            charge = min(part, actual)
            bucket.spent[grant] += charge
            actual -= charge
            bucket.put_back(grant, part - charge)
        for grant, part in bucket.borrow(actual).items():
            bucket.spent[grant] += part
            actual -= part
        bucket.debt += actual
        bucket.owed += actual
        self.settled[settlement.run_id] = settlement.settlement_id
        return "SETTLED", found is None, actual

    def release(self, run_id: UUID, token: str) -> str:
        """Give a hold back."""
        if run_id in self.settled:
            return "SETTLED"
        found = self.holds.get(run_id)
        if found is None:
            return "NOTHING"
        if found.token != token:
            return "STALE"
        del self.holds[run_id]
        bucket = self.buckets[found.client_id]
        for grant, part in found.shares.items():
            bucket.held[grant] -= part
            bucket.put_back(grant, part)
        return "RELEASED"

    def grants(self, client_id: str) -> tuple[GrantBalance, ...]:
        """Return what a balance has to say of each grant."""
        bucket = self.buckets[client_id]
        return tuple(
            GrantBalance(
                grant_id=grant,
                granted=bucket.granted[grant],
                available=bucket.available[grant],
                held=bucket.held[grant],
                spent=bucket.spent[grant],
                repaid=bucket.repaid[grant],
            )
            for grant in sorted(bucket.granted)
        )


def assert_laws(balance: Balance) -> None:
    """L2 per grant and per client, L1, and that debt is paid before anything is available."""
    for grant in balance.grants:
        parts = (grant.available, grant.held, grant.spent, grant.repaid)
        assert min(parts) >= 0, grant
        assert sum(parts) == grant.granted, grant
    assert balance.granted + balance.owed == balance.available + balance.held + balance.spent, balance
    assert balance.owed == balance.debt - sum(grant.repaid for grant in balance.grants), balance
    assert balance.owed >= 0, balance
    assert balance.owed == 0 or balance.available == 0, balance
