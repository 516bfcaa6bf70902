"""Which shards are trusted, and how a lost one comes back: close, assert holds, rebuild, verify (L6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from billing.core.credits import NO_GRANT, check_amount
from billing.core.errors import Conflict
from billing.core.shards import shard_of
from billing.credits.plan import BucketPlan
from billing.credits.records import check_logged
from billing.credits.terms import ORDINARY
from billing.credits.twin.book import Account, Book
from billing.credits.twin.marks import Marks
from billing.credits.twin.memory import HeldRun, InMemory, SettledRun, Shard, atomic
from billing.credits.values import RebuildOutcome, StoredHold


class Trust(InMemory):
    """The trust in each shard."""

    @atomic
    def server_of(self, shard: int) -> tuple[str | None, str]:
        """Return the id of the server that the shard is verified on, if any, and of the one that answers now."""
        return self._memory.shards[shard].server, self._memory.server

    @atomic
    def asserts_of(self, shard: int) -> int:
        """Return how many forced holds were ever written without a bucket; a plan is good while it stays the same."""
        return self._memory.shards[shard].asserts

    @atomic
    def time_ms(self) -> int:
        """Return the clock by which deadlines and expiries are judged."""
        return self._memory.now_ms()

    @atomic
    def close(self, shard: int) -> None:
        """Trust a shard's buckets no longer: every verb answers `RECOVERING` until it is verified again."""
        self._memory.shards[shard].server = None

    @atomic
    def verify(self, shard: int, *, expected: str | None, asserts: int | None = None) -> bool:
        """Open a shard on the server that answers now, if that is the `expected` one (None: whichever it is).

        With `asserts`, only if no hold was asserted since it was read. False: nothing was changed, rebuild again.
        """
        found, current = self._memory.shards[shard], self._memory.server
        if expected not in (None, "", current) or asserts not in (None, found.asserts):
            return False
        found.server = current
        return True

    @atomic
    def held(self, client_id: str | None, shard: int | None = None, *, among: int | None = None) -> list[StoredHold]:
        """Return the holds of a client, or of a whole shard, oldest deadline first; on a recovering shard too.

        `among`: only so many of the shard are looked at, those whose lease ends first.
        """
        if client_id is not None:
            shard = shard_of(client_id, self.shards)
        if shard is None:
            message = "either a client or a shard"
            raise TypeError(message)
        found, now_ms = self._memory.shards[shard], self._memory.now_ms()
        runs = [(found.run(run_id, now_ms), deadline_ms) for run_id, deadline_ms in list(found.by_deadline())[:among]]
        return [
            run.stored(deadline_ms)
            for run, deadline_ms in runs
            if isinstance(run, HeldRun) and client_id in (None, run.hold.client_id)
        ]

    @atomic
    def mark_logged(self, client_id: str, run_id: UUID, settlement_id: str) -> None:
        """Turn a hold that survived into a settled run, since the log has it: no reaper settles it again (L4).

        A hold that an open bucket lent to is left alone: a settle ends it. Raises `Conflict` for another client's run.
        """
        check_logged(settlement_id)
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        run = shard.run(run_id, now_ms)
        if not isinstance(run, HeldRun):
            shard.leases.pop(run_id, None)
            return
        if run.hold.client_id != client_id:
            message = f"run_id: '{run_id}': belongs to another client than {client_id!r}"
            raise Conflict(message)
        book = shard.books.get(client_id)
        if book is not None and not self._recovering(shard) and book.epoch == run.epoch:
            return
        until_ms = now_ms + self._retention_ms
        # The entry 0-0 is in no outbox.
        shard.runs[run_id] = SettledRun(
            settlement_id=settlement_id, client_id=client_id, entry_id="0-0", until_ms=until_ms
        )
        shard.leases.pop(run_id, None)

    def mark_all_logged(self, runs: Sequence[tuple[str, UUID, str]]) -> None:
        """Do so for (client id, run id, settlement id) of many."""
        for run in runs:
            self.mark_logged(*run)

    @atomic
    def epochs(self, client_ids: Sequence[str]) -> dict[str, int]:
        """Return the epoch of each client's bucket, 0 where there is none; works on a recovering shard too."""
        books = {client_id: self._of(client_id).books.get(client_id) for client_id in client_ids}
        return {client_id: 0 if book is None else book.epoch for client_id, book in books.items()}

    @atomic
    def repaid(self, grants: Mapping[str, Sequence[int]]) -> dict[str, dict[int, int]]:
        """Return how much debt each of some clients' grants has repaid, as far as a bucket that is there says so."""
        found = {}
        for client_id, ids in grants.items():
            shard = self._of(client_id)
            book = shard.books.get(client_id) or shard.left.get(client_id)
            accounts = book.accounts if book else {}
            if ids:
                known = [accounts[grant] for grant in ids if grant in accounts]
                found[client_id] = {account.grant_id: account.repaid for account in known if account.repaid}
        return found

    @atomic
    def rebuild(self, client_id: str, epoch: int, plan: BucketPlan, *, server: str, asserts: int) -> RebuildOutcome:
        """Write a client's bucket and what it lends to the surviving holds, from a plan (`plan_bucket`).

        `server` and `asserts` are what `server_of` and `asserts_of` said before the holds were read. While the shard
        recovers the same plan writes the same bucket; once it is open nothing is overwritten.
        """
        check_amount("epoch", epoch)
        shard, now_ms = self._of(client_id), self._memory.now_ms()
        if server != self._memory.server:
            return RebuildOutcome.MOVED
        present = shard.books.get(client_id)
        if present is not None and present.epoch > epoch:
            return RebuildOutcome.STALE
        if present is not None and not self._recovering(shard):
            return RebuildOutcome.ALREADY if present.epoch == epoch else RebuildOutcome.OPEN
        runs = _surviving(shard, plan, now_ms)
        if asserts != shard.asserts or runs is None:
            return RebuildOutcome.MOVED
        book = book_of(plan, epoch)
        book.marks = Marks.made(self._percents, book.usable(now_ms), book.brought(now_ms))
        shard.books[client_id] = book
        was_in_debt = present is not None and present.in_debt
        self._tell_debt(shard, client_id, book, was_in_debt=was_in_debt, now_ms=now_ms)
        shard.left.pop(client_id, None)
        for grant_id, at_ms in plan.endings.items():
            shard.endings[grant_id, client_id] = at_ms
        for run in runs:
            run.lent, run.epoch = dict(plan.holds[run.hold.run_id]), epoch
        return RebuildOutcome.REBUILT

    def rebuild_all(self, plans: Iterable[tuple[str, int, BucketPlan]], *, server: str, asserts: int) -> RebuildOutcome:
        """Do so for (client id, epoch, plan) of a shard; end at the first outcome that is another than `REBUILT`."""
        outcomes = (self.rebuild(*each, server=server, asserts=asserts) for each in plans)
        return next((outcome for outcome in outcomes if outcome is not RebuildOutcome.REBUILT), RebuildOutcome.REBUILT)


def _surviving(shard: Shard, plan: BucketPlan, now_ms: int) -> list[HeldRun] | None:
    """Return the runs that a plan lends to; None if one of them is held no more."""
    runs = [shard.run(run_id, now_ms) for run_id in plan.holds]
    held = [run for run in runs if isinstance(run, HeldRun)]
    return held if len(held) == len(runs) else None


def book_of(plan: BucketPlan, epoch: int) -> Book:
    """Return the bucket of a plan."""
    adjusted: dict[int, int] = {}
    for shares in plan.adjusted.values():
        for grant, credits_ in shares.items():
            adjusted[grant] = adjusted.get(grant, 0) + credits_
    accounts = {
        grant.grant_id: Account(
            grant_id=grant.grant_id,
            granted=grant.granted,
            terms=plan.terms.get(grant.grant_id, ORDINARY),
            available=grant.available,
            held=grant.held,
            spent=grant.spent,
            repaid=grant.repaid,
            expired=grant.expired,
            voided=grant.voided - adjusted.get(grant.grant_id, 0),
            adjusted=adjusted.get(grant.grant_id, 0),
        )
        for grant in plan.grants
    }
    return Book(
        epoch=epoch,
        accounts=accounts,
        order=[accounts[grant] for grant in plan.order],
        owed=plan.owed,
        room=plan.room,
        debt_settled=plan.debt,
        debt_adjusted=adjusted.get(NO_GRANT, 0),
        terms=plan.client,
        adjustments=dict(plan.adjusted),
        beyond=dict(plan.beyond),
    )
