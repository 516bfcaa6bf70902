"""PostgreSQL, as far as billing decides by it: clients, grants, usage history, requests for rebuilds.

A transaction changes all at once or nothing. What a batch comes to is decided by the project's own code.
"""

from __future__ import annotations

import collections
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from billing.core.clock import from_milliseconds
from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.posting import Posting
from billing.credits.terms import ORDINARY, GrantTerms
from billing.events.direct import DIRECT_EPOCH
from billing.events.usage_event import UsageEvent
from billing.fulfillment import allotment, compensation, usage_rows, verdicts
from billing.fulfillment.allotment import GrantLeft
from billing.fulfillment.compensation import Correction
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.verdicts import Consequences, Grants, KnownClient, Settled, Sorting
from tests.simulation.endings import Endings
from tests.simulation.sync.memory_usage import MemoryUsage

_HOUR_MS: Final = 3_600_000


@dataclass(kw_only=True)
class GrantRow:
    """A grant that the ledger has; `applied`: its bucket has it, too."""

    grant_id: int
    client_id: str
    credits: int
    terms: GrantTerms = ORDINARY
    applied: bool = False


@dataclass(kw_only=True)
class Total:
    """What a bucket is to be told of one grant, and the version that it has been told."""

    credits: int = 0
    version: int = 0
    applied: int = 0


class Locked(Unreachable):
    """A rebuild has the shard's lock: the batch waits."""


@dataclass(kw_only=True)
class Log:
    """The tables."""

    shards: int
    #: The rollup, as the planner reads it.
    usage: MemoryUsage = field(default_factory=MemoryUsage)
    epochs: dict[str, int] = field(default_factory=dict)
    grants: dict[int, GrantRow] = field(default_factory=dict)
    history: dict[uuid.UUID, UsageEvent] = field(default_factory=dict)
    spent: dict[str, dict[int, int]] = field(default_factory=dict)
    markers: set[uuid.UUID] = field(default_factory=set)
    letters: list[str] = field(default_factory=list)
    #: Shard to the number of the request; a rebuild answers those that were there when it began.
    rebuilds: dict[int, int] = field(default_factory=dict)
    requests: int = 0
    #: Shards whose exclusive lock a rebuild has.
    locked: set[int] = field(default_factory=set)
    #: Shards whose lock a batch that is not committed yet shares, by its queue.
    shared: dict[int, set[int]] = field(default_factory=dict)
    endings: Endings = field(default_factory=Endings)
    #: Grants that no bucket is known to have.
    unapplied: dict[int, None] = field(default_factory=dict)
    _grants_of: dict[str, list[GrantRow]] = field(default_factory=dict)
    corrections: dict[uuid.UUID, list[Correction]] = field(default_factory=dict)
    #: Who is told of each row.
    tell: Callable[[UsageEvent], None] = lambda _: None
    #: By client, epoch and grant.
    totals: dict[tuple[str, int, int], Total] = field(default_factory=dict)
    returned: set[tuple[uuid.UUID, Settled]] = field(default_factory=set)
    duplicates: int = 0
    direct: int = 0

    def add_client(self, client_id: str) -> None:
        """Add a client at its first epoch."""
        self.epochs[client_id] = 1
        self.spent[client_id] = {}

    def add_grant(self, client_id: str, credits_: int, terms: GrantTerms = ORDINARY) -> GrantRow:
        """Add a grant; a bucket gets it later."""
        row = GrantRow(grant_id=len(self.grants) + 1, client_id=client_id, credits=credits_, terms=terms)
        self.take(row)
        self.unapplied[row.grant_id] = None
        return row

    def take(self, row: GrantRow) -> None:
        """Take a grant that has its number already."""
        self.grants[row.grant_id] = row
        self._grants_of.setdefault(row.client_id, []).append(row)

    def forget_grants(self, *, but_of: str) -> None:
        """Forget the grants of every other client."""
        self._grants_of = {but_of: self._grants_of.get(but_of, [])}
        self.grants = {row.grant_id: row for row in self._grants_of[but_of]}

    def applied(self, grant_id: int) -> None:
        """Note that a bucket has a grant."""
        self.grants[grant_id].applied = True
        self.unapplied.pop(grant_id, None)

    def grants_of(self, client_id: str) -> list[GrantRow]:
        """Return a client's grants in burn order."""
        return sorted(
            self._grants_of.get(client_id, ()),
            key=lambda row: (row.terms.priority, row.terms.expires_ms or 2**63, row.grant_id),
        )

    def request_rebuild(self, shard: int) -> None:
        """Ask for a rebuild that begins after now."""
        self.requests += 1
        self.rebuilds[shard] = self.requests

    def answered(self, shard: int, began: int) -> None:
        """Take a request away that was there when its rebuild began."""
        if self.rebuilds.get(shard, began + 1) <= began:
            del self.rebuilds[shard]

    @contextmanager
    def lock(self, shard: int) -> Iterator[None]:
        """Hold the shard's lock alone: batches and other rebuilders wait."""
        if shard in self.locked or any(shard in shards for shards in self.shared.values()):
            raise Locked("the shard is being rebuilt, or written")
        self.locked.add(shard)
        try:
            yield
        finally:
            self.locked.discard(shard)

    def share(self, queue: int, shards: set[int]) -> None:
        """Hold the shards' locks, shared with other batches, until the batch of a queue is committed."""
        if shards & self.locked:
            raise Locked("a shard is being rebuilt")
        self.shared[queue] = shards

    def begin(self, epochs: Mapping[str, int]) -> None:
        """Begin epochs; what waited for the buckets of these clients is in the plans of the new ones."""
        self.epochs |= epochs
        for grant in [grant for grant in self.unapplied if self.grants[grant].client_id in epochs]:
            self.applied(grant)
        for grant in [grant for grant in self.endings.voids if self.grants[grant].client_id in epochs]:
            del self.endings.voids[grant]

    def waiting(self) -> dict[tuple[str, int], list[Posting]]:
        """Return what is not in its bucket yet, by client and epoch: of the client's own epoch, and of grants there."""
        found: dict[tuple[str, int], list[Posting]] = {}
        for (client_id, epoch, grant), total in self.totals.items():
            there = grant == 0 or self.grants[grant].applied
            if epoch == self.epochs[client_id] and total.applied < total.version and there:
                entered = self.endings.entered(grant)
                row = Posting(grant_id=grant, version=total.version, credits=total.credits, entered=entered)
                found.setdefault((client_id, epoch), []).append(row)
        return found

    def is_told(self, client_id: str, run_id: uuid.UUID) -> bool:
        """Whether a run is in the history, and its client's bucket has learned of all that it had to be told."""
        totals = (total for (client, epoch, _), total in self.totals.items() if (client, epoch) == self._now(client_id))
        return run_id in self.history and all(total.applied == total.version for total in totals)

    def mark_applied(self, client_id: str, epoch: int, rows: Sequence[Posting]) -> None:
        """Note that the bucket has these versions."""
        for row in rows:
            total = self.totals[client_id, epoch, row.grant_id]
            total.applied = max(total.applied, row.version)

    def write(self, batch: Sequence[Delivered], now_ms: int) -> None:
        """Write a batch in one transaction, as `billing.fulfillment.postgres_log` does."""
        sorting = verdicts.sort(batch)
        names = {event.client_id for _, event in sorting.events}
        clients = {
            name: KnownClient(shard=shard_of(name, self.shards), epoch=self.epochs[name])
            for name in names
            if name in self.epochs
        }
        if any(known.shard in self.locked for known in clients.values()):
            raise Locked("the shard is being rebuilt")
        verdicts.refuse(sorting, clients, now_ms)
        self._allot(sorting)
        first = verdicts.first_of_each_run(sorting)
        stored = {run_id: _settled(self.history[run_id]) for run_id in first if run_id in self.history}
        inserted = [event for run_id, event in first.items() if run_id not in self.history]
        for event in inserted:
            self.history[event.run_id] = event
            stored[event.run_id] = _settled(event)
            self.tell(event)
        self._roll_up(inserted)
        for client_id, grant, credits_ in zip(*usage_rows.spent(inserted), strict=True):
            self.spent[client_id][grant] = self.spent[client_id].get(grant, 0) + credits_
        self.duplicates += len(sorting.events) - len(inserted)
        self._follow(verdicts.consequences(sorting, clients, inserted, stored))
        self.letters += [reason for _, reason in sorting.letters]
        self.markers |= {marker.token for marker in sorting.markers}

    def correct(self, run_id: uuid.UUID, amount: int, now_ms: int) -> Correction:
        """Return credits of a run's line (amount below 0), as `billing.fulfillment.adjustments` does."""
        event, before = self.history[run_id], self.corrections.get(run_id, [])
        if shard_of(event.client_id, self.shards) in self.locked:
            raise Locked("the shard is being rebuilt")
        line = event.lines[0]
        compensation.check_bound(f"line {run_id}:0", line.credits, before, amount, again=True)
        shares = compensation.returned({share.grant: share.credits for share in line.grants}, before, amount)
        made = Correction(run_id=run_id, credits=amount, grants=shares)
        self.corrections.setdefault(run_id, []).append(made)
        hour = from_milliseconds(now_ms - now_ms % _HOUR_MS)
        self.usage.give_back(event.client_id, line.sku, hour, -amount)
        for grant, credits_ in shares.items():
            self.spent[event.client_id][grant] = self.spent[event.client_id].get(grant, 0) + credits_
        self._post(event.client_id, shares)
        return made

    def _roll_up(self, inserted: Sequence[UsageEvent]) -> None:
        for client_id, sku, hour_ms, credits_, _ in zip(*usage_rows.rollups(inserted), strict=True):
            self.usage.use(client_id, sku, from_milliseconds(hour_ms), credits_)

    def _now(self, client_id: str) -> tuple[str, int]:
        return client_id, self.epochs[client_id]

    def _allot(self, sorting: Sorting) -> None:
        """Have the clients' grants pay new direct events, as `billing.fulfillment.doubts` does."""
        new = [event for run, event in verdicts.first_of_each_run(sorting).items() if run not in self.history]
        direct = [event for event in new if event.epoch == DIRECT_EPOCH]
        books = {event.client_id: self._left(event.client_id) for event in direct}
        allotment.use(books, (event for event in new if event.epoch != DIRECT_EPOCH))
        paid = {id(event): allotment.allot(event, books[event.client_id]) for event in direct}
        sorting.events = [(message, paid.get(id(event), event)) for message, event in sorting.events]
        self.direct += len(direct)

    def _left(self, client_id: str) -> list[GrantLeft]:
        spent = self.spent[client_id]
        return [
            GrantLeft(grant_id=row.grant_id, credits=row.credits - spent.get(row.grant_id, 0), terms=row.terms)
            for row in self.grants_of(client_id)
        ]

    def _follow(self, found: Consequences) -> None:
        for client_id, epoch in found.epochs.items():
            self.epochs[client_id] = max(self.epochs[client_id], epoch)
        for shard in found.rebuilds:
            self.request_rebuild(shard)
        totals: dict[str, Grants] = collections.defaultdict(dict, found.taken)
        for key, event in found.returned.items():
            if key not in self.returned:
                self.returned.add(key)
                verdicts.add_shares(totals[event.client_id], event, -1)
        for client_id, grants in totals.items():
            self._post(client_id, grants)

    def _post(self, client_id: str, grants: Mapping[int, int]) -> None:
        for grant, credits_ in grants.items():
            total = self.totals.setdefault((client_id, self.epochs[client_id], grant), Total())
            total.credits += credits_
            total.version += 1


def _settled(event: UsageEvent) -> Settled:
    return Settled(event.settlement_id, event.epoch)
