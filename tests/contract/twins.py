"""The twin in a server's place: one memory that the tests share, with what they ask of a server."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from uuid import UUID

from billing.core.clock import Clock
from billing.core.shards import shard_of
from billing.credits.twin.buckets import Twin
from billing.credits.twin.marks import Mark
from billing.credits.twin.memory import Memory, Shard
from tests.contract.servers import FUTURE_MS, LEASE_SECONDS, SHARDS, Marks


class TwinServer:
    """A memory, as `Server` is a process. Keys, commands and connections it has not: see the mark `raw`."""

    def __init__(self, clock: Clock | None = None, *, shards: int = SHARDS) -> None:
        self.memory = Memory(clock)
        self._shards = shards

    def client(self) -> Memory:
        """Return what takes a connection's place; all of them are one."""
        return self.memory

    def flush(self) -> None:
        """Lose everything."""
        self.memory.wipe()

    def lose_bucket(self, client_id: str) -> None:
        """Lose one client's bucket; the holds that it lent to stay."""
        self.memory.lose_bucket(client_id, self._shards)

    def lose_string(self, client_id: str) -> None:
        """Lose what one client's bucket has available; what it was granted stays, and the holds."""
        self.memory.lose_bucket(client_id, self._shards, whole=False)

    def end_lease(self, client_id: str, run_id: UUID) -> None:
        """Let a hold's deadline have passed, in a shard that is swept without a pause."""
        shard = self._shard_of(client_id)
        if run_id in shard.leases:
            shard.leases[run_id] = 1
        shard.swept_ms, shard.grace_ms = FUTURE_MS, 0

    def end_grant(self, client_id: str, grant_id: int) -> None:
        """Let the time be over of a grant that has an end and is in use: nothing was swept since."""
        shard = self._shard_of(client_id)
        book = shard.books.get(client_id)
        account = book.accounts.get(grant_id) if book else None
        if account is not None and book is not None and account in book.order and account.terms.expires_ms:
            account.terms = dataclasses.replace(account.terms, expires_ms=1)
            shard.endings[grant_id, client_id] = 1

    def marks(self, client_id: str) -> Marks | None:
        """Return the marks of a bucket; None where it has none."""
        book = self._shard_of(client_id).books.get(client_id)
        if book is None or book.marks is None:
            return None
        return tuple(map(_pair, book.marks.armed)), tuple(map(_pair, book.marks.alerted))

    def contents(self) -> dict[object, object]:
        """Return everything that it holds."""
        return {number: pickle.dumps(shard) for number, shard in self.memory.shards.items()}

    def buckets(
        self,
        *,
        client: Memory | None = None,
        lease_seconds: float = LEASE_SECONDS,
        settled_retention_seconds: float = 3_600.0,
        outbox_entries_max: int = 10_000,
        alert_percents: Sequence[int] = (20, 5),
        verified: bool = True,
    ) -> Twin:
        """Return buckets in this memory, its shards verified."""
        twin = Twin(
            client or self.memory,
            shards=self._shards,
            lease_seconds=lease_seconds,
            settled_retention_seconds=settled_retention_seconds,
            outbox_entries_max=outbox_entries_max,
            alert_percents=alert_percents,
        )
        if verified:
            for shard in range(self._shards):
                assert twin.verify(shard, expected=None)
        return twin

    def _shard_of(self, client_id: str) -> Shard:
        return self.memory.shards[shard_of(client_id, self._shards)]


def _pair(mark: Mark) -> tuple[int, int]:
    return mark.credits, mark.percent
