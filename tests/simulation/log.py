"""PostgreSQL, as far as billing decides by it: clients, grants, usage history, requests for rebuilds.

A transaction changes all at once or nothing. What a batch comes to is decided by the project's own code.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.terms import ORDINARY, GrantTerms
from billing.events.usage_event import UsageEvent
from billing.fulfillment import usage_rows, verdicts
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.verdicts import KnownClient


@dataclass(kw_only=True)
class GrantRow:
    """A grant that the ledger has; `applied`: its bucket has it, too."""

    grant_id: int
    client_id: str
    credits: int
    terms: GrantTerms = ORDINARY
    applied: bool = False


class Locked(Unreachable):
    """A rebuild has the shard's lock: the batch waits."""


@dataclass(kw_only=True)
class Log:
    """The tables."""

    shards: int
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
    duplicates: int = 0

    def add_client(self, client_id: str) -> None:
        """Add a client at its first epoch."""
        self.epochs[client_id] = 1
        self.spent[client_id] = {}

    def add_grant(self, client_id: str, credits_: int, terms: GrantTerms = ORDINARY) -> GrantRow:
        """Add a grant; a bucket gets it later."""
        row = GrantRow(grant_id=len(self.grants) + 1, client_id=client_id, credits=credits_, terms=terms)
        self.grants[row.grant_id] = row
        return row

    def grants_of(self, client_id: str) -> list[GrantRow]:
        """Return a client's grants in burn order."""
        own = (row for row in self.grants.values() if row.client_id == client_id)
        return sorted(own, key=lambda row: (row.terms.priority, row.terms.expires_ms or 2**63, row.grant_id))

    def request_rebuild(self, shard: int) -> None:
        """Ask for a rebuild that begins after now."""
        self.requests += 1
        self.rebuilds[shard] = self.requests

    def answered(self, shard: int, began: int) -> None:
        """Take a request away that was there when its rebuild began."""
        if self.rebuilds.get(shard, began + 1) <= began:
            del self.rebuilds[shard]

    def write(self, batch: Sequence[Delivered], now_ms: int) -> None:
        """Write a batch in one transaction, as `billing.fulfillment.usage_log` does."""
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
        first = verdicts.first_of_each_run(sorting)
        stored = {run_id: self.history[run_id].settlement_id for run_id in first if run_id in self.history}
        inserted = [event for run_id, event in first.items() if run_id not in self.history]
        for event in inserted:
            self.history[event.run_id] = event
            stored[event.run_id] = event.settlement_id
        for client_id, grant, credits_ in zip(*usage_rows.spent(inserted), strict=True):
            self.spent[client_id][grant] = self.spent[client_id].get(grant, 0) + credits_
        self.duplicates += len(sorting.events) - len(inserted)
        found = verdicts.consequences(sorting, clients, inserted, stored)
        for client_id, epoch in found.epochs.items():
            self.epochs[client_id] = max(self.epochs[client_id], epoch)
        for shard in found.rebuilds:
            self.request_rebuild(shard)
        self.letters += [reason for _, reason in sorting.letters]
        self.markers |= {marker.token for marker in sorting.markers}
