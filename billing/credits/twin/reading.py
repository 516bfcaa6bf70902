"""Reads of the twin, and the removal of what was read: balances, the outbox, the alerts. No credits change here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from billing.core.errors import Recovering
from billing.core.shards import shard_of
from billing.credits.auditing import HOLDS_MAX, BucketReading
from billing.credits.entries import AlertEntry, OutboxEntry
from billing.credits.twin.memory import HeldRun, InMemory, atomic
from billing.credits.twin.reserving import joined
from billing.credits.values import Balance


class Reading(InMemory):
    """What is told of the buckets."""

    @atomic
    def balance(self, client_id: str) -> Balance | None:
        """Return the bucket of a client, None if there is none; raises `Recovering` while it cannot be trusted."""
        shard = self._of(client_id)
        if self._recovering(shard):
            message = f"client_id: {client_id!r}: the shard's balances are being rebuilt; try again"
            raise Recovering(message)
        book = shard.books.get(client_id)
        return None if book is None else book.balance(client_id, self._memory.now_ms())

    @atomic
    def audit(self, client_ids: Sequence[str], *, holds_max: int = HOLDS_MAX) -> dict[str, BucketReading]:
        """Return the bucket of each client, with what its holds were lent where its shard has no more than so many."""
        now_ms = self._memory.now_ms()
        return {client_id: self._reading(client_id, now_ms, holds_max) for client_id in client_ids}

    def _reading(self, client_id: str, now_ms: int, holds_max: int) -> BucketReading:
        number, shard = shard_of(client_id, self.shards), self._of(client_id)
        if self._recovering(shard):
            return BucketReading(client_id=client_id, shard=number, at_ms=0, recovering=True)
        book = shard.books.get(client_id)
        lent: dict[int, int] = {}
        deadlines = []
        for run_id, deadline_ms in shard.by_deadline() if len(shard.leases) <= holds_max else ():
            run = shard.run(run_id, now_ms)
            if isinstance(run, HeldRun) and run.hold.client_id == client_id:
                deadlines.append(deadline_ms)
                lent = joined(lent, run.lent_by(book))
        return BucketReading(
            client_id=client_id,
            shard=number,
            at_ms=now_ms,
            balance=None if book is None else book.balance(client_id, now_ms),
            lent=lent if len(shard.leases) <= holds_max else None,
            holds=len(deadlines),
            oldest_deadline_ms=deadlines[0] if deadlines else 0,
        )

    def balances(self, client_ids: Sequence[str]) -> dict[str, Balance]:
        """Return the balance of each client that has a bucket on a trusted shard."""
        readings = self.audit(client_ids, holds_max=0).items()
        return {client_id: reading.balance for client_id, reading in readings if reading.balance is not None}

    @atomic
    def outbox(self, shard: int, *, older_than_ms: int, count: int) -> list[OutboxEntry]:
        """Return the oldest entries of a shard, at most `count`, that are at least so old.

        An entry from the future counts as old: the clock was ahead once, and its real age is not known.
        """
        entries = []
        for entry_id, event in islice(self._memory.shards[shard].outbox.entries.items(), count):
            age_ms = self._age_ms(entry_id)
            if age_ms < 0 or age_ms >= older_than_ms:
                entries.append(OutboxEntry(entry_id=entry_id, event=event, age_ms=max(age_ms, 0)))
        return entries

    @atomic
    def outbox_depth(self, shard: int) -> int:
        """Return how many events of a shard wait for their confirm."""
        return len(self._memory.shards[shard].outbox.entries)

    @atomic
    def oldest_outbox_ms(self, shards: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return of each shard how many events wait in its outbox, and the age in ms of the oldest one."""
        waiting = {}
        for number in shards:
            entries = self._memory.shards[number].outbox.entries
            waiting[number] = (len(entries), max(0, self._age_ms(next(iter(entries)))) if entries else 0)
        return waiting

    @atomic
    def outboxes_since_ms(self, shards: Sequence[int]) -> dict[int, int | None]:
        """Return of each shard when the oldest entry of its outbox was written; None: it is empty."""
        firsts = {number: next(iter(self._memory.shards[number].outbox.entries), None) for number in shards}
        return {number: None if first is None else int(first.partition("-")[0]) for number, first in firsts.items()}

    @atomic
    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Remove confirmed entries, each (shard, entry id)."""
        for shard, entry_id in entries:
            self._memory.shards[shard].outbox.entries.pop(entry_id, None)

    def forget_reached(self, entries: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        """Remove confirmed entries; none is left to be removed later."""
        self.forget(entries)
        return []

    @atomic
    def alerts(self, *, count: int) -> list[AlertEntry]:
        """Return the oldest entries of every shard, at most `count` of each."""
        return [
            told.entry(number, entry_id)
            for number in range(self.shards)
            for entry_id, told in islice(self._memory.shards[number].alerts.entries.items(), count)
        ]

    @atomic
    def ends_told(self, client_ids: Sequence[str]) -> set[str]:
        """Return those of these clients whose end was told since a grant last left them something."""
        books = {client_id: self._of(client_id).books.get(client_id) for client_id in client_ids}
        return {client_id for client_id, book in books.items() if book and book.marks and book.marks.end_alerted}

    @atomic
    def forget_alerts(self, entries: Sequence[AlertEntry]) -> None:
        """Remove exactly these entries."""
        for entry in entries:
            self._memory.shards[entry.shard].alerts.entries.pop(entry.entry_id, None)

    def _age_ms(self, entry_id: str) -> int:
        return self._memory.now_ms() - int(entry_id.partition("-")[0])
