"""What changes a client's credits apart from its runs: grants, voids, adjustments, terms, and the end of a grant.

Each verb is idempotent by the id that the ledger gave it.
"""

from __future__ import annotations

from collections.abc import Sequence

from billing.core.credits import CREDITS_MAX, NO_GRANT, check_amount
from billing.core.limits import USABLE_GRANTS_MAX
from billing.credits.granting import AdjustOutcome, AdjustReply, Lapsed, TermsOutcome, VoidOutcome
from billing.credits.terms import ORDINARY, ClientTerms, GrantTerms
from billing.credits.twin.book import Account, Book, take
from billing.credits.twin.marks import Marks
from billing.credits.twin.memory import InMemory, Shard, atomic
from billing.credits.values import GrantOutcome, OpenOutcome


class Granting(InMemory):
    """The grants of the buckets."""

    @atomic
    def open_client(self, client_id: str, epoch: int = 1) -> OpenOutcome:
        """Make the empty bucket of a new client; an existing one stays as it is, and what is left of a lost one."""
        check_amount("epoch", epoch)
        shard = self._of(client_id)
        if self._recovering(shard):
            return OpenOutcome.RECOVERING
        if client_id in shard.books:
            return OpenOutcome.ALREADY
        if client_id in shard.left:
            return OpenOutcome.LOST
        shard.books[client_id] = Book(epoch=epoch)
        return OpenOutcome.OPENED

    @atomic
    def grant(self, client_id: str, grant_id: int, credits_: int, terms: GrantTerms = ORDINARY) -> GrantOutcome:
        """Add an allotment; what the client owes is paid first, unless the grant is for some SKUs alone.

        A closed client's bucket takes it too: what the ledger has, the bucket has (L2).
        """
        check_amount("grant_id", grant_id)
        check_amount("credits", credits_)
        terms.text()  # refuses a SKU that a bucket could not keep
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return GrantOutcome.RECOVERING
        book = shard.books.get(client_id)
        if book is None:
            return GrantOutcome.UNKNOWN_CLIENT
        if grant_id in book.accounts:
            same = book.accounts[grant_id].granted == credits_
            return GrantOutcome.ALREADY if same else GrantOutcome.CONFLICT
        if book.total + credits_ > CREDITS_MAX:
            return GrantOutcome.TOO_LARGE
        if sum(not account.used_up for account in book.paying(now_ms)) >= USABLE_GRANTS_MAX:
            return GrantOutcome.TOO_MANY

        account = Account(grant_id=grant_id, granted=credits_, terms=terms)
        if account.pays_at(now_ms):
            book.put_back(account, credits_, now_ms)
        else:
            # One that arrives after its time pays no debt either; `lapse` counts it away.
            account.available = credits_
        book.add(account)
        alerted = book.marks.alerted if book.marks else ()
        book.marks = Marks.made(self._percents, book.usable(now_ms), book.brought(now_ms), alerted)
        if terms.expires_ms:
            shard.endings[grant_id, client_id] = terms.expires_ms
        return GrantOutcome.GRANTED

    @atomic
    def void(self, client_id: str, grant_id: int) -> VoidOutcome:
        """Take back what a grant has available; its holds keep what they were lent.

        What a posting gives back to a used-up grant later is voided too. One whose time was over has expired.
        """
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return VoidOutcome.RECOVERING
        book = shard.books.get(client_id)
        if book is None:
            return VoidOutcome.UNKNOWN_CLIENT
        account = book.accounts.get(grant_id)
        if account is None:
            return VoidOutcome.UNKNOWN_GRANT
        if account.terms.voided_ms:
            return VoidOutcome.ALREADY
        if account.pays_at(now_ms):
            terms = account.terms
            account.terms = GrantTerms(
                priority=terms.priority, expires_ms=terms.expires_ms, skus=terms.skus, voided_ms=now_ms
            )
            account.voided += account.available
            account.available = 0
        shard.endings[grant_id, client_id] = now_ms
        return VoidOutcome.VOIDED

    @atomic
    def adjust(self, client_id: str, adjustment_id: int, credits_: int) -> AdjustReply:
        """Take credits away, in burn order and whatever their SKUs; what is missing becomes debt (grant 0)."""
        check_amount("credits", credits_)
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return AdjustReply(outcome=AdjustOutcome.RECOVERING, grants={})
        book = shard.books.get(client_id)
        if book is None:
            return AdjustReply(outcome=AdjustOutcome.UNKNOWN_CLIENT, grants={})
        if adjustment_id in book.adjustments:
            return AdjustReply(outcome=AdjustOutcome.ALREADY, grants=book.adjustments[adjustment_id])
        taken = take({account.grant_id: account.available for account in book.paying(now_ms)}, credits_)
        missing = credits_ - sum(taken.values())
        if book.total + missing > CREDITS_MAX:
            return AdjustReply(outcome=AdjustOutcome.TOO_LARGE, grants={})
        for grant, part in taken.items():
            book.accounts[grant].available -= part
            book.accounts[grant].adjusted += part
        was_in_debt = book.in_debt
        book.debt_adjusted += missing
        book.owed += missing
        self._tell_debt(shard, client_id, book, was_in_debt=was_in_debt, now_ms=now_ms)
        shares = taken | ({NO_GRANT: missing} if missing else {})
        book.adjustments[adjustment_id] = shares
        return AdjustReply(outcome=AdjustOutcome.ADJUSTED, grants=shares)

    @atomic
    def set_terms(self, client_id: str, terms: ClientTerms) -> TermsOutcome:
        """Give a client its state and its overdraft limit."""
        check_amount("overdraft_limit", terms.overdraft_limit, minimum=0)
        shard = self._of(client_id)
        if self._recovering(shard):
            return TermsOutcome.RECOVERING
        book = shard.books.get(client_id)
        if book is None:
            return TermsOutcome.UNKNOWN_CLIENT
        was_in_debt = book.in_debt
        book.terms = terms
        self._tell_debt(shard, client_id, book, was_in_debt=was_in_debt, now_ms=self._memory.now_ms())
        return TermsOutcome.SET

    @atomic
    def endings_due(self, shards: Sequence[int] | None = None) -> list[int]:
        """Return which of these shards (None: of all) have grants to look at."""
        now_ms = self._memory.now_ms()
        asked = range(self.shards) if shards is None else shards
        return [one for one in asked if any(at <= now_ms for at in self._memory.shards[one].endings.values())]

    @atomic
    def lapse(self, shard: int, count: int) -> list[Lapsed]:
        """Sweep a shard: move what ended grants still have to what expired; return those whose amounts are final.

        Each is named again until `forget_lapsed`, which is to follow its entry in the ledger.
        """
        found, now_ms = self._memory.shards[shard], self._memory.now_ms()
        if self._recovering(found):
            return []
        due = sorted((at, f"{grant} {client}", grant, client) for (grant, client), at in found.endings.items())
        lapsed = []
        for _, _, grant_id, client_id in [one for one in due if one[0] <= now_ms][:count]:
            found.endings[grant_id, client_id] = now_ms + self._lease_ms
            amounts = _final(found, client_id, grant_id, now_ms)
            if amounts is not None:
                expired, voided, repaid = amounts
                lapsed.append(
                    Lapsed(
                        shard=shard,
                        client_id=client_id,
                        grant_id=grant_id,
                        expired=expired,
                        voided=voided,
                        repaid=repaid,
                    )
                )
        return lapsed

    @atomic
    def forget_lapsed(self, grants: Sequence[Lapsed]) -> None:
        """Look at these grants no more, the ledger having these amounts; one that has got more since is named again."""
        for one in grants:
            shard = self._memory.shards[one.shard]
            book = shard.books.get(one.client_id)
            account = book.accounts.get(one.grant_id) if book else None
            now = (account.expired, account.voided) if account else (0, 0)
            if not self._recovering(shard) and now == (one.expired, one.voided):
                shard.endings.pop((one.grant_id, one.client_id), None)


def _final(shard: Shard, client_id: str, grant_id: int, now_ms: int) -> tuple[int, int, int] | None:
    """Count an ended grant's credits away; return what expired, was voided, had repaid once no hold refers to it."""
    book = shard.books.get(client_id)
    account = book.accounts.get(grant_id) if book else None
    if book is None or account is None:
        return None if book is None else (0, 0, 0)
    if account in book.order:
        if account.pays_at(now_ms):
            return None
        account.end(account.available)
        account.available = 0
        if account.held:
            return None
    return account.expired, account.voided, account.repaid
