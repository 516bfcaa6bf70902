"""Plans a bucket from the ledger and the log: pure, and the same answer for the same facts, whoever rebuilds (L6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from uuid import UUID

from billing.core.credits import NO_GRANT
from billing.credits.lending import Claim, lend
from billing.credits.plan import ORDINARY_TERMS, BucketPlan, LedgerTerms, sums_of
from billing.credits.terms import ORDINARY, GrantTerms
from billing.credits.values import GrantBalance


class _Books:
    """One client's credits while they are planned, a number per grant."""

    def __init__(self, grants: Sequence[tuple[int, int]], spent: Mapping[int, int], known: LedgerTerms) -> None:
        self.known = known
        self.granted = dict(grants)
        # The ledger's entries never change: what was adjusted away or has ended, or had repaid debt before it ended,
        # cannot have paid for anything.
        taken, repaid = sums_of(known.adjustments), known.repaid_before_end
        left = self.granted
        if taken or known.final:
            gone = {g: taken.get(g, 0) + sum(known.final.get(g, (0, 0))) + repaid.get(g, 0) for g in self.granted}
            left = {g: credits_ - gone[g] for g, credits_ in grants}
        self.paid = {grant: max(0, min(credits_, spent.get(grant, 0))) for grant, credits_ in left.items()}
        self.debt = sum(spent.values()) - sum(self.paid.values())
        self.beyond = {
            grant: credits_ - self.paid.get(grant, 0)
            for grant, credits_ in spent.items()
            if grant != NO_GRANT and credits_ > self.paid.get(grant, 0)
        }
        self.available = {grant: credits_ - self.paid[grant] for grant, credits_ in grants}
        self.held = dict.fromkeys(self.granted, 0)
        self.repaid, self.expired, self.voided = self.held.copy(), self.held.copy(), self.held.copy()
        self.adjusted: dict[int, Mapping[int, int]] = {}
        self.room = self.adjusted_debt = 0

    def terms(self, grant: int) -> GrantTerms:
        return self.known.grants.get(grant, ORDINARY)

    def move(self, grant: int, credits_: int, to: dict[int, int]) -> int:
        """Move what there is of an amount from available to another account; return what was moved."""
        part = min(credits_, self.available[grant])
        self.available[grant] -= part
        to[grant] += part
        return part

    def adjust(self, adjustment: int, shares: Mapping[int, int]) -> None:
        """Take what an adjustment took; what a grant has no more (the log has it for something else) is debt."""
        taken = {grant: part for grant in self.granted if (part := self.move(grant, shares.get(grant, 0), self.voided))}
        missing = sum(shares.values()) - sum(taken.values())
        self.adjusted[adjustment] = taken | ({NO_GRANT: missing} if missing else {})
        self.adjusted_debt += missing

    def close(self, grant: int, expired: int, voided: int) -> None:
        """Book the end of a grant as the ledger has it, and what debt it had repaid by then.

        What is left beyond that came back to it since, or was spent by a run whose event is lost: it has ended with the
        grant, and repays nothing.
        """
        self.move(grant, expired, self.expired)
        self.move(grant, voided, self.voided)
        owed = self.owed()
        self.move(grant, min(owed, self.known.repaid_before_end.get(grant, owed)), self.repaid)
        is_voided = voided or self.terms(grant).voided_ms
        self.move(grant, self.available[grant], self.voided if is_voided else self.expired)

    def lend_again(self, need: int, stored: Mapping[int, int]) -> dict[int, int]:
        """Lend to a hold what it says that it was lent, as far as that is there.

        Overdraft room is: a limit that was lowered since takes none of it back, and the client owes as much as it did.
        """
        shares, left = {}, need
        for grant, credits_ in stored.items():
            if grant == NO_GRANT:
                part = min(left, credits_)
                self.room += part
            else:
                part = self.move(grant, min(left, credits_), self.held) if grant in self.granted else 0
            if part:
                shares[grant] = part
                left -= part
        return shares

    def lend(self, holds: Sequence[tuple[UUID, int]], loans: Mapping[UUID, dict[int, int]]) -> None:
        """Lend to holds what they lack, from the grants that each could use when it was made, then overdraft room."""
        if not holds:
            return
        fitting: dict[str, list[tuple[int, int]]] = {}
        claims = []
        for run_id, need in holds:
            sku, created_ms = self.known.claims.get(run_id, ("", 0))
            if sku not in fitting:
                fitting[sku] = self.fitting(sku)
            usable = tuple(grant for grant, ends_ms in fitting[sku] if not 0 < ends_ms <= created_ms)
            claims.append(Claim(run_id=run_id, need=need, usable=usable))
        lend(self.available, self.held, claims, loans)
        self.available[NO_GRANT] = max(0, self.known.client.overdraft_limit - self.room)
        self.held[NO_GRANT] = self.room
        anybody = [dataclasses.replace(claim, usable=(*claim.usable, NO_GRANT)) for claim in claims]
        lend(self.available, self.held, anybody, loans)
        del self.available[NO_GRANT]
        self.room = self.held.pop(NO_GRANT)

    def fitting(self, sku: str) -> list[tuple[int, int]]:
        """Return the grants that may lend to holds for a SKU, with when each ends or ended."""
        found = []
        for grant in self.granted:
            terms = self.terms(grant)
            some = self.available[grant] or self.held[grant]
            if some and grant not in self.known.final and (not sku or terms.fits(sku)):
                found.append((grant, min(filter(None, (terms.expires_ms, terms.voided_ms)), default=0)))
        return found

    def end(self) -> None:
        """Take what is left of the grants that have ended."""
        for grant, terms in self.known.grants.items():
            if grant not in self.granted or grant in self.known.final:
                continue
            if terms.ended_at(self.known.now_ms):
                self.move(grant, self.available[grant], self.voided if terms.voided_ms else self.expired)

    def is_entered(self, grant: int) -> bool:
        """Whether the ledger has all of a grant's end: what was given back to it since is not in its entry."""
        if grant not in self.known.final:
            return False
        adjusted = sums_of(self.adjusted).get(grant, 0)
        return self.expired[grant] + self.voided[grant] - adjusted <= sum(self.known.final[grant])

    def take(self, adjustment: int, credits_: int) -> None:
        """Apply an adjustment that no bucket has seen, as the script does: in burn order."""
        shares, left = {}, credits_
        for grant in self.granted:
            part = min(left, self.available[grant])
            if part:
                shares[grant] = part
                left -= part
        self.adjust(adjustment, shares | ({NO_GRANT: left} if left else {}))

    def repay_again(self) -> None:
        """Pay debt by the grants that had repaid it, as far as ledger and log bear that out: first what has ended."""
        owed, now_ms = self.owed() if self.known.repaid else 0, self.known.now_ms
        order = sorted(self.known.repaid.items(), key=lambda one: not self.terms(one[0]).ended_at(now_ms))
        for grant, credits_ in order:
            if grant in self.granted and grant not in self.known.final and not self.terms(grant).skus:
                owed -= self.move(grant, min(credits_, owed), self.repaid)

    def repay(self) -> int:
        """Pay debt from what is available for every SKU, in burn order; return what is still owed."""
        owed = self.owed()
        for grant in self.granted if owed else ():
            if not self.terms(grant).skus:
                owed -= self.move(grant, owed, self.repaid)
        return owed

    def owed(self) -> int:
        """Return the debt that nothing has repaid."""
        return self.debt + self.adjusted_debt - sum(self.repaid.values())


def plan_bucket(
    *,
    grants: Sequence[tuple[int, int]],
    spent: Mapping[int, int],
    holds: Sequence[tuple[UUID, int]],
    lent: Mapping[UUID, Mapping[int, int]] | None = None,
    known: LedgerTerms | None = None,
) -> BucketPlan:
    """Return the bucket that the facts add up to.

    `grants`: (grant id, granted) in burn order. `spent`: what the log says each grant paid; under 0, what nothing had
    covered. `holds`: (run id, credits) of the surviving holds, oldest run first; `lent`: what they say that each grant
    lent them, which comes before any other: a restricted grant that one of them has is no use to the next. Holds come
    before debt, as they do in a live bucket; what then remains pays debt, in burn order. What the log says beyond a
    grant's amount, less what was adjusted away or has ended, or of a grant that is not in the ledger, is debt: the sum
    of what was spent is never changed.
    """
    known = known or ORDINARY_TERMS
    books = _Books(grants, spent, known)
    for adjustment, shares in known.adjustments.items():
        books.adjust(adjustment, shares)
    for grant, (expired, voided) in known.final.items():
        books.close(grant, expired, voided)
    loans = {run_id: books.lend_again(need, (lent or {}).get(run_id, {})) for run_id, need in holds}
    books.repay_again()
    books.lend(holds, loans)
    books.end()
    books.repay()
    for adjustment, credits_ in known.waiting:
        books.take(adjustment, credits_)
    owed = books.repay()
    balances = tuple(
        GrantBalance(
            grant_id=grant,
            granted=credits_,
            available=books.available[grant],
            held=books.held[grant],
            spent=books.paid[grant],
            repaid=books.repaid[grant],
            expired=books.expired[grant],
            voided=books.voided[grant],
        )
        for grant, credits_ in grants
    )
    ending = {grant: terms for grant, terms in known.grants.items() if terms.ends and grant in books.granted}
    return BucketPlan(
        grants=balances,
        order=tuple(grant for grant in books.granted if books.available[grant] or books.held[grant]),
        debt=books.debt,
        owed=owed,
        holds={run_id: _room_last(shares) for run_id, shares in loans.items()},
        room=books.room,
        client=known.client,
        terms=known.grants,
        adjusted=books.adjusted,
        endings={
            grant: terms.voided_ms or terms.expires_ms for grant, terms in ending.items() if not books.is_entered(grant)
        },
        beyond=books.beyond,
    )


def _room_last(shares: Mapping[int, int]) -> dict[int, int]:
    """Return what a hold is lent with its overdraft room last."""
    return dict(sorted(shares.items(), key=lambda share: share[0] == NO_GRANT))
