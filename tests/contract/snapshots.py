"""All that there is of a client and of its shard, read from a server in one round trip, and from the twin.

A snapshot of the one is equal to a snapshot of the other, except for the moments in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from billing.core.shards import shard_of
from billing.credits import alert_stream, auditing, verification
from billing.credits.auditing import BucketReading
from billing.credits.buckets import Buckets
from billing.credits.entries import AlertEntry
from billing.credits.keys import shard_keys
from billing.credits.records import read_hold
from billing.credits.twin.buckets import Twin
from billing.credits.values import StoredHold
from tests.contract.servers import Marks, read_marks
from tests.contract.twins import TwinServer


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A client's bucket, holds and marks; of its shard the new alerts and events, and how far it is trusted."""

    reading: BucketReading
    holds: Mapping[UUID, StoredHold]
    leases: frozenset[str]
    marks: Marks | None
    alerts: Sequence[AlertEntry]
    events: Sequence[bytes]
    outbox_depth: int
    trusted: bool
    asserts: int


class ServerReader:
    """Reads snapshots of buckets on a server; what is new is what came since the shard was read before."""

    def __init__(self, buckets: Buckets, before: ServerReader | None = None) -> None:
        """Read on where a reader of the same server's earlier life has come to."""
        self._buckets = buckets
        self._server: dict[int, str] = {}
        self._events: defaultdict[int, str] = before._events if before else defaultdict(lambda: "-")
        self._alerts: defaultdict[int, str] = before._alerts if before else defaultdict(lambda: "-")

    def read(self, client_id: str, runs: Sequence[UUID]) -> tuple[int, Snapshot]:
        """Return the server's time, and a snapshot in which the records of these runs are read, if they are held."""
        shard = shard_of(client_id, self._buckets.shards)
        keys = shard_keys(shard)
        if shard not in self._server:
            self._server[shard] = self._buckets.server_of(shard)[1]
        answers = self._buckets._scripts.run_all(
            [
                ("TIME",),
                self._buckets._audit(shard, [client_id]),
                ("GET", keys.bucket + client_id),
                ("GET", keys.server),
                ("GET", keys.asserts),
                ("ZRANGE", keys.leases, 0, -1, "WITHSCORES"),
                ("XRANGE", keys.alerts, self._alerts[shard], "+"),
                ("XRANGE", keys.outbox, self._events[shard], "+"),
                ("XLEN", keys.outbox),
                *([("MGET", *(keys.run + run.hex for run in runs))] if runs else []),
            ]
        )
        time, audit, bucket, server, asserts, leases, alerts, events, depth, *records = answers
        deadlines = {run.decode(): deadline for run, deadline in verification._pairs(leases)}
        held = (
            read_hold(run.hex, deadlines.get(run.hex, 0), record)
            for run, record in zip(runs, records[0] if records else [], strict=True)
        )
        marks = (bucket or b"").decode().partition(" !")[2]
        self._alerts[shard] = _after(alerts, self._alerts[shard])
        self._events[shard] = _after(events, self._events[shard])
        return int(time[0]) * 1_000 + int(time[1]) // 1_000, Snapshot(
            reading=auditing._read(shard, [client_id], audit)[client_id],
            holds={hold.run_id: hold for hold in held if hold is not None and hold.client_id == client_id},
            leases=frozenset(deadlines),
            marks=read_marks(marks) if marks else None,
            alerts=[alert_stream._entry(shard, entry_id.decode(), fields) for entry_id, fields in alerts],
            events=[_event(fields) for _, fields in events],
            outbox_depth=int(depth),
            trusted=server is not None and server.decode() == self._server[shard],
            asserts=int(asserts or 0),
        )


class TwinReader:
    """Reads the same of a twin, through its verbs."""

    def __init__(self, server: TwinServer, twin: Twin) -> None:
        self._server = server
        self._twin = twin
        self._seen: defaultdict[int, set[str]] = defaultdict(set)

    def read(self, client_id: str) -> Snapshot:
        """Return a snapshot."""
        shard = shard_of(client_id, self._twin.shards)
        seen = self._seen[shard]
        kept = self._server.memory.shards[shard]
        alerts = [(entry_id, told) for entry_id, told in kept.alerts.entries.items() if f"alert {entry_id}" not in seen]
        events = self._twin.outbox(shard, older_than_ms=0, count=100_000)
        found = Snapshot(
            reading=self._twin.audit([client_id])[client_id],
            holds={hold.run_id: hold for hold in self._twin.held(client_id)},
            leases=frozenset(run.hex for run in kept.leases),
            marks=self._server.marks(client_id),
            alerts=[told.entry(shard, entry_id) for entry_id, told in alerts],
            events=[entry.event for entry in events if entry.entry_id not in seen],
            outbox_depth=self._twin.outbox_depth(shard),
            trusted=self._twin.server_of(shard)[0] == self._twin.server_of(shard)[1],
            asserts=self._twin.asserts_of(shard),
        )
        seen |= {f"alert {entry_id}" for entry_id, _ in alerts} | {entry.entry_id for entry in events}
        return found


def _event(fields: Any) -> bytes:
    event: bytes = fields[b"e"] if isinstance(fields, dict) else fields[1]
    return event


def _after(entries: Sequence[tuple[bytes, Any]], before: str) -> str:
    """Return where the next reading of a stream begins."""
    return f"({entries[-1][0].decode()}" if entries else before
