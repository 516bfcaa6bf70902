"""Postings in the twin: what the log says beyond a bucket's own settles, as absolute totals with a version.

All is done to a copy of the bucket, which takes the bucket's place only if every sum of it can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from billing.core.credits import CREDITS_MAX, NO_GRANT, check_amount
from billing.credits.posting import Posted, Posting, PostOutcome, check_rows
from billing.credits.twin.book import Account, Book, burns_at
from billing.credits.twin.memory import atomic
from billing.credits.twin.reserving import Reserving


class Posts(Reserving):
    """How postings come into buckets."""

    @atomic
    def post(self, client_id: str, epoch: int, rows: Sequence[Posting]) -> PostOutcome:  # noqa: C901, PLR0911 - one per outcome
        """Bring a bucket of this epoch to what the log says beyond its settles; what it has seen is skipped."""
        check_amount("epoch", epoch)
        check_rows(rows)
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if self._recovering(shard):
            return PostOutcome.RECOVERING
        present = shard.books.get(client_id)
        if present is None:
            return PostOutcome.UNKNOWN_CLIENT
        if present.epoch != epoch:
            return PostOutcome.STALE
        if any(_is_reused(present.posted.get(row.grant_id), row) for row in rows):
            return PostOutcome.REUSED
        changes = _unseen(present, rows)
        if not changes:
            return PostOutcome.ALREADY
        work = _Work(present.copy(), now_ms)
        work.give_back(changes)
        work.take(changes)
        work.pay_debt(present)
        if work.book.total > CREDITS_MAX:
            return PostOutcome.TOO_LARGE
        if not work.adds_up:
            return PostOutcome.UNCOVERED

        book = shard.books[client_id] = work.done(rows)
        if work.received:
            book.rearm(now_ms)
        if work.taken:
            self._tell(shard, client_id, book, now_ms)
        self._tell_debt(shard, client_id, book, was_in_debt=present.in_debt, now_ms=now_ms)
        before = {account.grant_id for account in present.order}
        for account in book.order:
            if account.grant_id not in before and account.terms.expires_ms:
                shard.endings[account.grant_id, client_id] = account.terms.expires_ms
        shard.endings.update(dict.fromkeys(((grant_id, client_id) for grant_id in work.look_at), now_ms))
        return PostOutcome.POSTED


#: Of a row that is new: (grant id, credits, restored) beyond what was posted before, and what is entered.
_Change = tuple[int, int, int, int]


def _unseen(book: Book, rows: Iterable[Posting]) -> list[_Change]:
    """Return what is new."""
    changes = []
    for row in rows:
        seen = book.posted.get(row.grant_id, Posted(version=0, credits=0, restored=0))
        if row.version > seen.version:
            changes.append((row.grant_id, row.credits - seen.credits, row.restored - seen.restored, row.entered))
    return changes


def _is_reused(seen: Posted | None, row: Posting) -> bool:
    """Whether a version that was seen has other totals now."""
    same = seen is not None and seen.version == row.version
    return same and seen != Posted(version=row.version, credits=row.credits, restored=row.restored)


class _Work:
    """A bucket while it is posted to. A grant that it never had has an account, of nothing, for as long as that."""

    def __init__(self, book: Book, now_ms: int) -> None:
        self.book = book
        self.now_ms = now_ms
        self.received = self.taken = False
        self.look_at: set[int] = set()
        self._strangers: dict[int, Account] = {}
        self._covered = True

    def give_back(self, changes: Iterable[_Change]) -> None:
        """Give back first, so that there is more to take from: what the grant had no more, then what it had spent."""
        book = self.book
        for grant, credits_, restored, _ in changes:
            if grant == NO_GRANT:
                book.debt_settled += credits_
            elif credits_ < 0:
                undone = min(-credits_, book.beyond.get(grant, 0))
                self._go_beyond(grant, -undone)
                self._account(grant).spent -= -credits_ - undone
                self._receive(grant, -credits_ - undone)
            if restored > 0:
                self._receive(grant, restored)

    def take(self, changes: Iterable[_Change]) -> None:
        """Take what there is of each grant, spent or away; the rest is debt of that grant."""
        for grant, credits_, restored, entered in changes:
            if grant == NO_GRANT:
                continue
            account = self._account(grant)
            if credits_ > 0:
                part = self._draw(account, credits_)
                part += self._draw_ended(account, credits_ - part, entered)
                account.spent += part
                self._go_beyond(grant, credits_ - part)
            if restored < 0:
                # What is no more there has been spent, which no credit covered.
                missing = -restored - self._draw(account, -restored)
                account.spent -= missing
                self._go_beyond(grant, missing)

    def pay_debt(self, before: Book) -> None:
        """Pay back who had repaid debt that is gone; have debt that is there repaid.

        The last in burn order comes first, but what has ended after all others: to that one it is lost.
        """
        book = self.book
        book.owed += book.debt_settled - before.debt_settled
        accounts = sorted((*book.accounts.values(), *self._strangers.values()), key=burns_at)
        in_use = [account for account in accounts if account.pays_at(self.now_ms)]
        for account in (*reversed(in_use), *(one for one in reversed(accounts) if one not in in_use)):
            while (part := min(-book.owed, account.repaid)) > 0:
                debt = book.debt_settled
                account.repaid -= part
                self._receive(account.grant_id, part)
                book.owed += part + book.debt_settled - debt
        for account in accounts:
            if account.pays_at(self.now_ms) and not account.terms.skus:
                part = self._draw(account, book.owed) if book.owed > 0 else 0
                account.repaid += part
                book.owed -= part

    @property
    def adds_up(self) -> bool:
        """Whether no more was given back than was ever spent."""
        book = self.book
        spent = all(account.spent >= 0 for account in (*book.accounts.values(), *self._strangers.values()))
        return self._covered and spent and book.owed >= 0 and book.debt_settled >= sum(book.beyond.values())

    def done(self, rows: Iterable[Posting]) -> Book:
        """Return the bucket with every grant at its place in the burn order, and with what it has seen now."""
        book = self.book
        stay = [account for account in book.accounts.values() if account in book.order or account.available]
        book.order = sorted(stay, key=burns_at)
        for row in rows:
            seen = book.posted.get(row.grant_id)
            if seen is None or row.version > seen.version:
                book.posted[row.grant_id] = Posted(version=row.version, credits=row.credits, restored=row.restored)
        return book

    def _account(self, grant: int) -> Account:
        known = self.book.accounts.get(grant)
        return known or self._strangers.setdefault(grant, Account(grant_id=grant, granted=0))

    def _receive(self, grant: int, credits_: int) -> None:
        """Put credits into a grant; one that has ended has them expired or voided, and is to be looked at."""
        self._covered = self._covered and (credits_ == 0 or grant in self.book.accounts)
        account = self._account(grant)
        if account.terms.ended_at(self.now_ms):
            account.end(credits_)
            self.look_at.add(grant)
        else:
            # It pays first what the log says that it paid, and nobody owes that any more.
            noted = min(credits_, self.book.beyond.get(grant, 0))
            self._go_beyond(grant, -noted)
            account.spent += noted
            account.available += credits_ - noted
            self.received = self.received or credits_ > noted

    def _draw(self, account: Account, need: int) -> int:
        part = min(account.available, need)
        account.available -= part
        self.taken = self.taken or part > 0
        return part

    def _draw_ended(self, account: Account, need: int, entered: int) -> int:
        """Draw from what has ended with a grant and is not in the ledger yet; it is to be looked at again."""
        if not account.terms.ended_at(self.now_ms):
            return 0
        has = account.voided if account.terms.voided_ms else account.expired
        part = max(0, min(need, has, account.expired + account.voided - entered))
        account.end(-part)
        if part:
            self.look_at.add(account.grant_id)
        return part

    def _go_beyond(self, grant: int, credits_: int) -> None:
        """Count as debt what the log says that a grant paid, though it had no more."""
        self.book.debt_settled += credits_
        self.book.beyond[grant] = self.book.beyond.get(grant, 0) + credits_
