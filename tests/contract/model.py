"""What buckets must do, in plain Python, written apart from the scripts: the oracle of the random walks.

One hold is a list of (grant, credits), one bucket a handful of dicts. No Redis, no cleverness.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import UUID

from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from billing.credits.values import Balance, GrantBalance, Hold, Settlement


@dataclass
class ModelHold:
    """A run that is held. A share of grant 0 is overdraft room."""

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
    expired: dict[int, int] = field(default_factory=dict)
    voided: dict[int, int] = field(default_factory=dict)
    debt: int = 0
    adjusted_debt: int = 0
    #: Debt alone; with `room`, what holds were lent of the overdraft, it is what the client owes.
    owed: int = 0
    room: int = 0
    client: ClientTerms = ClientTerms()
    terms: dict[int, GrantTerms] = field(default_factory=dict)
    adjustments: dict[int, dict[int, int]] = field(default_factory=dict)
    #: The grants that have ended, and the account that what they have left, or get back, goes to.
    ended: dict[int, dict[int, int]] = field(default_factory=dict)

    def burn_order(self) -> list[int]:
        """Priority, then expiry (never is last), then id."""

        def key(grant: int) -> tuple[int, float, int]:
            terms = self.terms[grant]
            return terms.priority, terms.expires_ms or float("inf"), grant

        return sorted(self.available, key=key)

    def pays(self, grant: int, sku: str | None) -> bool:
        """Whether a grant can pay for a SKU; None stands for any."""
        return grant not in self.ended and (sku is None or self.terms[grant].fits(sku))

    def usable(self, sku: str | None) -> int:
        """Return what can pay for a SKU."""
        return sum(credits_ for grant, credits_ in self.available.items() if self.pays(grant, sku))

    def put_back(self, grant: int, credits_: int) -> None:
        """Credits come to a grant: debt is paid first, but not by a grant that ended or that is for some SKUs."""
        if grant in self.ended:
            self.ended[grant][grant] += credits_
            return
        pays = 0 if self.terms[grant].skus else min(self.owed, credits_)
        self.owed -= pays
        self.repaid[grant] += pays
        self.available[grant] += credits_ - pays

    def borrow(self, need: int, sku: str | None) -> dict[int, int]:
        """Take up to `need` from what is available, in burn order."""
        taken = {}
        for grant in self.burn_order():
            part = min(need, self.available[grant]) if self.pays(grant, sku) else 0
            if part:
                self.available[grant] -= part
                taken[grant] = part
                need -= part
        return taken

    def end(self, grant: int, account: dict[int, int]) -> None:
        """End a grant, its time being over or it being voided: what it has left goes to an account."""
        self.ended[grant] = account
        account[grant] += self.available[grant]
        self.available[grant] = 0


class Model:
    """Buckets and runs."""

    def __init__(self) -> None:
        self.buckets: dict[str, ModelBucket] = {}
        self.holds: dict[UUID, ModelHold] = {}
        self.settled: dict[UUID, str] = {}

    def grant(self, client_id: str, grant_id: int, credits_: int, terms: GrantTerms | None = None) -> str:
        """Add an allotment."""
        bucket = self.buckets.get(client_id)
        if bucket is None:
            return "UNKNOWN_CLIENT"
        if grant_id in bucket.granted:
            return "ALREADY" if bucket.granted[grant_id] == credits_ else "CONFLICT"
        bucket.granted[grant_id] = credits_
        bucket.terms[grant_id] = terms or GrantTerms()
        accounts = (bucket.available, bucket.held, bucket.spent, bucket.repaid, bucket.expired, bucket.voided)
        for part in accounts:
            part[grant_id] = 0
        bucket.put_back(grant_id, credits_)
        return "GRANTED"

    def reserve(self, hold: Hold) -> tuple[str, int]:  # noqa: C901, PLR0911 - one return per outcome
        """Hold credits; answers the outcome and what is held or was available."""
        if hold.run_id in self.settled:
            return "SETTLED", 0
        found = self.holds.get(hold.run_id)
        if found is not None and (found.client_id, found.sku) != (hold.client_id, hold.sku):
            return "CONFLICT", 0
        bucket = self.buckets.get(hold.client_id)
        if bucket is None:
            return "UNKNOWN_CLIENT", 0
        if bucket.client.state is not ClientState.ACTIVE and (found is None or found.token != hold.token):
            return bucket.client.state.name, 0
        has = sum(found.shares.values()) if found else 0
        need = max(0, hold.credits - has)
        usable = bucket.usable(hold.sku)
        free = bucket.client.overdraft_limit - bucket.owed - bucket.room
        if free < 0 and (need or found is None):
            return "INSUFFICIENT", has
        if need > usable + max(0, free):
            return "INSUFFICIENT", usable + has + free
        taken = bucket.borrow(need, hold.sku)
        for grant, part in taken.items():
            bucket.held[grant] += part
        room = need - sum(taken.values())
        if room:
            taken[0] = room
            bucket.room += room
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
        left = dict(found.shares) if found else {}
        bucket.room -= left.pop(0, 0)
        for grant, part in left.items():
            bucket.held[grant] -= part
        debt = 0
        # Each line takes of the hold, then in burn order, as far as grants pay for its SKU.
        for sku, amount in zip(skus_of(settlement), settlement.amounts, strict=True):
            need = amount
            for grant in left:
                part = min(need, left[grant]) if bucket.terms[grant].fits(sku) else 0
                left[grant] -= part
                bucket.spent[grant] += part
                need -= part
            for grant, part in bucket.borrow(need, sku).items():
                bucket.spent[grant] += part
                need -= part
            debt += need
        for grant, part in left.items():
            bucket.put_back(grant, part)
        bucket.debt += debt
        bucket.owed += debt
        self.settled[settlement.run_id] = settlement.settlement_id
        return "SETTLED", found is None, debt

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
        bucket.room -= found.shares.pop(0, 0)
        for grant, part in found.shares.items():
            bucket.held[grant] -= part
            bucket.put_back(grant, part)
        return "RELEASED"

    def void(self, client_id: str, grant_id: int) -> str:
        """Take back what a grant has left."""
        bucket = self.buckets[client_id]
        if grant_id not in bucket.granted:
            return "UNKNOWN_GRANT"
        if bucket.ended.get(grant_id) is bucket.voided:
            return "ALREADY"
        if grant_id not in bucket.ended and (bucket.available[grant_id] or bucket.held[grant_id]):
            bucket.end(grant_id, bucket.voided)
        return "VOIDED"

    def adjust(self, client_id: str, adjustment_id: int, credits_: int) -> tuple[str, dict[int, int]]:
        """Take credits away; what is missing is debt."""
        bucket = self.buckets[client_id]
        if adjustment_id in bucket.adjustments:
            return "ALREADY", bucket.adjustments[adjustment_id]
        taken = bucket.borrow(credits_, None)
        for grant, part in taken.items():
            bucket.voided[grant] += part
        missing = credits_ - sum(taken.values())
        bucket.adjusted_debt += missing
        bucket.owed += missing
        bucket.adjustments[adjustment_id] = taken | ({0: missing} if missing else {})
        return "ADJUSTED", bucket.adjustments[adjustment_id]

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
                expired=bucket.expired[grant],
                voided=bucket.voided[grant],
            )
            for grant in sorted(bucket.granted)
        )


def skus_of(settlement: Settlement) -> list[str]:
    """Return the SKU of each line."""
    return [json.loads(fragment + b"}")["sku"] for fragment in settlement.fragments]


def assert_laws(balance: Balance) -> None:
    """L2 per grant and per client, L1, and that debt is paid before anything is available for every SKU."""
    for grant in balance.grants:
        parts = (grant.available, grant.held, grant.spent, grant.repaid, grant.expired, grant.voided)
        assert min(parts) >= 0, grant
        assert sum(parts) == grant.granted, grant
    used = balance.available + balance.held + balance.spent + balance.expired + balance.voided
    assert balance.granted + balance.owed == used, balance
    debt = balance.owed - balance.room
    assert debt == balance.debt + balance.adjusted_debt - sum(grant.repaid for grant in balance.grants), balance
    assert min(debt, balance.room) >= 0, balance
    restricted = {grant for grant, terms in balance.grant_terms.items() if terms.skus}
    for grant in balance.grants:
        assert debt == 0 or grant.available == 0 or grant.grant_id in restricted, balance
