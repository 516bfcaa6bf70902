"""Walks over all clients in the order of their shards: one slice of buckets, and PostgreSQL's side of them."""

from __future__ import annotations

import dataclasses
from typing import Final

import sqlalchemy
from sqlalchemy import text

from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.credits.auditing import BucketReading
from billing.ledger.corruptions import tell_corruption
from billing.ledger.rebuilds import request_rebuild
from billing.reconciliation import reading
from billing.reconciliation.continuous import statements
from billing.reconciliation.continuous.audit import SILENT, audit
from billing.reconciliation.continuous.chase import Chase
from billing.reconciliation.continuous.docket import Docket
from billing.reconciliation.laws import bucket, holds, orphans
from billing.reconciliation.report import Law
from billing.task.runtime import Runtime

TOO_MANY_HOLDS: Final = "its shard has too many holds to look at in one step"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """The last client of a slice, and how many it had."""

    shard: int
    client_id: str
    clients: int


class Walk:
    """The next slice, and the next."""

    def __init__(self, runtime: Runtime, engine: sqlalchemy.Engine, docket: Docket, chase: Chase) -> None:
        self._runtime, self._engine, self._docket, self._chase = runtime, engine, docket, chase

    def clients(self) -> int:
        """Return how many clients there are."""
        with reading.snapshot(self._runtime.settings, self._engine) as connection:
            return int(connection.execute(text(statements.CLIENTS)).scalar_one())

    def slice(self, shard: int, after: str) -> Reached | None:
        """Compare the next clients; return how far it came, None after the last one."""
        runtime = self._runtime
        values = {"shard": shard, "after": after, "limit": runtime.settings.reconcile_slice}
        with reading.snapshot(runtime.settings, self._engine) as connection:
            page = {row.client_id: row.shard for row in connection.execute(text(statements.PAGE), values)}
        if not page:
            return None
        readings = audit(runtime.buckets, page)
        now = to_milliseconds(runtime.clock.now())
        since = {client_id: found.at_ms or now for client_id, found in readings.items()}
        with reading.snapshot(runtime.settings, self._engine) as connection:
            ledger = reading.ledger_facts(connection, since)
        for client_id in page:
            if client_id not in readings:
                self._docket.missed.missed(client_id, Law.BUCKET.value, SILENT)
            elif client_id in ledger:
                self._by_itself(readings[client_id])
                self._rebuilt_if_corrupt(readings[client_id])
                self._chase.takes(readings[client_id], ledger[client_id])
        if not readings:
            # The rest of a shard that does not answer is for the next pass: each slice of it would cost its wait (L10).
            return Reached(shard=page[client_id] + 1, client_id="", clients=len(page))
        return Reached(shard=page[client_id], client_id=client_id, clients=len(page))

    def _by_itself(self, found: BucketReading) -> None:
        """Hold a bucket to the laws that need nothing but itself and its holds: read in one step, exact at once."""
        docket = self._docket
        if found.recovering:
            docket.missed.missed(found.client_id, Law.BUCKET.value, "its shard is recovering")
            return
        if found.balance is None:
            # No bucket at all is for the pursuit to say.
            docket.judge(found.client_id, (Law.BUCKET,) if found.unreadable else (), list(bucket.differences(found)))
            return
        laws, differing = [Law.BUCKET], list(bucket.differences(found))
        if found.lent is None:
            docket.missed.missed(found.client_id, Law.HOLDS.value, TOO_MANY_HOLDS)
        else:
            laws += [Law.HOLDS, Law.ORPHANS]
            differing += holds.differences(found)
            differing += orphans.differences(found, self._runtime.settings.lease_seconds)
        docket.judge(found.client_id, laws, differing)

    def _rebuilt_if_corrupt(self, found: BucketReading) -> None:
        """Have a corrupt bucket alerted of and rebuilt, before a task is refused for it."""
        if found.corruption is not None:
            runtime, reason = self._runtime, f"the bucket of client {found.client_id} is corrupt"
            # Of its own: whoever is refused meanwhile must not wait for the rest of this step.
            with postgres.reaching(runtime.settings), self._engine.begin() as connection:
                request_rebuild(connection, found.shard, reason)
            tell_corruption(runtime, found.client_id)
