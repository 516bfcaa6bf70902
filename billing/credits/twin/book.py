"""One client's bucket: an account per grant, what nothing covered, and the law that joins them (L2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from billing.core.credits import NO_GRANT
from billing.credits.posting import Posted
from billing.credits.terms import ORDINARY, ClientTerms, GrantTerms
from billing.credits.twin.marks import Marks
from billing.credits.values import Balance, GrantBalance


@dataclass(kw_only=True, slots=True, eq=False)
class Account:
    """One grant: `granted = available + held + spent + repaid + expired + voided + adjusted` (L2)."""

    grant_id: int
    granted: int
    terms: GrantTerms = ORDINARY
    available: int = 0
    held: int = 0
    spent: int = 0
    repaid: int = 0
    expired: int = 0
    voided: int = 0
    adjusted: int = 0

    @property
    def used_up(self) -> bool:
        """Whether nothing can be taken from it and nothing can come back to it."""
        return self.available == 0 and self.held == 0

    def pays_at(self, now_ms: int) -> bool:
        """Whether its time is not over: from that millisecond on it pays nothing, whatever it still has."""
        return not self.terms.ended_at(now_ms)

    def end(self, credits_: int) -> None:
        """Count credits away for good: a grant that was voided has them voided, one whose time is over expired."""
        if self.terms.voided_ms:
            self.voided += credits_
        else:
            self.expired += credits_

    def balance(self, now_ms: int) -> GrantBalance:
        """Return it as it is told: what nobody can use any more counts as expired, also before `lapse` has run."""
        over = self.available if self.terms.ended_at(now_ms) else 0
        return GrantBalance(
            grant_id=self.grant_id,
            granted=self.granted,
            available=self.available - over,
            held=self.held,
            spent=self.spent,
            repaid=self.repaid,
            expired=self.expired + over,
            voided=self.voided + self.adjusted,
        )


@dataclass(kw_only=True, slots=True)
class Book:
    """A bucket. `owed` is debt alone; `room` is what holds were lent of the overdraft.

    `debt = debt_settled + debt_adjusted - sum(repaid)`, and while there is any, no unrestricted grant has anything to
    use: what comes back to one pays debt. `order` is the burn order of the grants that are not used up; those that were
    when the last grant came have left it, until a posting gives something back to them. `beyond` is the part of
    `debt_settled` that the log counts as paid by a grant which had no more; `posted` what was posted.
    """

    epoch: int
    accounts: dict[int, Account] = field(default_factory=dict)
    order: list[Account] = field(default_factory=list)
    owed: int = 0
    room: int = 0
    debt_settled: int = 0
    debt_adjusted: int = 0
    terms: ClientTerms = ClientTerms()
    adjustments: dict[int, Mapping[int, int]] = field(default_factory=dict)
    beyond: dict[int, int] = field(default_factory=dict)
    posted: dict[int, Posted] = field(default_factory=dict)
    marks: Marks | None = None

    @property
    def total(self) -> int:
        """All that was granted and all debt there ever was: no sum over a bucket is larger."""
        return sum(account.granted for account in self.accounts.values()) + self.debt_settled + self.debt_adjusted

    @property
    def free_room(self) -> int | None:
        """How much may be held beyond the grants; None while more is owed than the limit."""
        free = self.terms.overdraft_limit - self.owed - self.room
        return free if free >= 0 else None

    @property
    def in_debt(self) -> bool:
        """Whether more is owed than the overdraft limit covers; room that holds were lent is no debt."""
        return self.owed > self.terms.overdraft_limit

    def paying(self, now_ms: int, sku: str | None = None) -> Iterator[Account]:
        """Yield the grants that can pay for a SKU now, in burn order; no SKU stands for any."""
        for account in self.order:
            if account.pays_at(now_ms) and (sku is None or account.terms.fits(sku)):
                yield account

    def usable(self, now_ms: int) -> int:
        """Return what is available, for whichever SKU."""
        return sum(account.available for account in self.paying(now_ms))

    def brought(self, now_ms: int) -> int:
        """Return what the usable grants brought, less what of it paid debt: marks are shares of it."""
        return sum(account.available + account.held + account.spent for account in self.paying(now_ms))

    def has_lent(self, shares: Mapping[int, int]) -> bool:
        """Whether the bucket holds all that a run says it was lent; one that was lost and opened anew does not."""
        held = {account.grant_id: account.held for account in self.order} | {NO_GRANT: self.room}
        return all(credits_ <= held.get(grant, -1) for grant, credits_ in shares.items())

    def add(self, account: Account) -> None:
        """Give a grant its place in the burn order; what is used up leaves it."""
        self.accounts[account.grant_id] = account
        stay = [other for other in self.order if not other.used_up]
        place = next((i for i, other in enumerate(stay) if burns_at(account) < burns_at(other)), len(stay))
        self.order = [*stay[:place], account, *stay[place:]]

    def copy(self) -> Self:
        """Return a bucket that changes apart from this one."""
        accounts = {grant: replace(account) for grant, account in self.accounts.items()}
        return replace(
            self,
            accounts=accounts,
            order=[accounts[account.grant_id] for account in self.order],
            adjustments=dict(self.adjustments),
            beyond=dict(self.beyond),
            posted=dict(self.posted),
        )

    def rearm(self, now_ms: int) -> None:
        """Arm the marks again that the client is lifted above, credits having come back."""
        if self.marks is not None:
            self.marks = self.marks.rearmed(self.usable(now_ms), self.brought(now_ms))

    def put_back(self, account: Account, credits_: int, now_ms: int) -> None:
        """Give credits to a grant, the only way: lost if it has ended, else debt first, unless it is for some SKUs."""
        if account.terms.ended_at(now_ms):
            account.end(credits_)
            return
        repaid = 0 if account.terms.skus else min(self.owed, credits_)
        self.owed -= repaid
        account.repaid += repaid
        account.available += credits_ - repaid

    def balance(self, client_id: str, now_ms: int) -> Balance:
        """Return the bucket as it is told."""
        grants = tuple(self.accounts[grant].balance(now_ms) for grant in sorted(self.accounts))
        return Balance(
            client_id=client_id,
            epoch=self.epoch,
            grants=grants,
            order=tuple(account.grant_id for account in self.order),
            debt=self.debt_settled,
            owed=self.owed + self.room,
            available=sum(grant.available for grant in grants),
            held=sum(grant.held for grant in grants) + self.room,
            spent=sum(grant.spent for grant in grants) + self.debt_settled,
            granted=sum(grant.granted for grant in grants),
            expired=sum(grant.expired for grant in grants),
            voided=sum(grant.voided for grant in grants) + self.debt_adjusted,
            adjusted_debt=self.debt_adjusted,
            room=self.room,
            terms=self.terms,
            grant_terms={one.grant_id: one.terms for one in self.order if one.terms != ORDINARY},
            beyond={grant: credits_ for grant, credits_ in self.beyond.items() if credits_},
            posted=dict(self.posted),
        )


def burns_at(account: Account) -> tuple[int, float, int]:
    """Return the place in the burn order: priority, then expiry (never is last), then id."""
    return account.terms.priority, account.terms.expires_ms or float("inf"), account.grant_id


def take(sources: dict[int, int], need: int, fits: Callable[[int], bool] | None = None) -> dict[int, int]:
    """Move up to a need out of what there is per grant, in its order; return what each one gave."""
    taken = {}
    for grant, available in sources.items():
        part = min(available, need) if fits is None or fits(grant) else 0
        if part:
            sources[grant] = available - part
            taken[grant] = part
            need -= part
    return taken
