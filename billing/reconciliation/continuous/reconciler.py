"""Compares every bucket with ledger and log, over and over, a slice at a time; one worker of the fleet leads.

It only reads, but for its own rows, and one repair that nobody need think about: a bucket that has what PostgreSQL has
lost is rebuilt, on record. What it finds is written with the place that it reached, in one transaction: a leader that
dies is replaced, and the next one goes on there. No step lasts long, and all steps together take no more than their
share of one core (L9).
"""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Connection, text

from billing.connections import postgres
from billing.reconciliation.continuous import keeping
from billing.reconciliation.continuous.chase import Chase
from billing.reconciliation.continuous.docket import Docket
from billing.reconciliation.continuous.keeping import Place
from billing.reconciliation.continuous.missed import summed
from billing.reconciliation.continuous.pace import Schedule, Share
from billing.reconciliation.continuous.standing import StandingBook
from billing.reconciliation.continuous.sums import Sums
from billing.reconciliation.continuous.walk import Walk
from billing.task.runtime import Runtime

#: A step begins no further slice after this time.
STEP_SECONDS_MAX: Final = 2.0


class Reconciler:
    """The reconciler of one worker: it leads, or waits for the leader to fall silent."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._me = uuid.uuid4()
        self._stopped = threading.Event()
        self._engine: sqlalchemy.Engine | None = None
        self._tour: _Tour | None = None

    def stop(self) -> None:
        """Begin no further slice."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections to PostgreSQL."""
        engine, self._engine, self._tour = self._engine, None, None
        if engine is not None:
            engine.dispose()

    def step(self) -> int:
        """Compare what is due; return how many clients were read. Raises `Retryable` when a server is away."""
        settings = self._runtime.settings
        if not settings.reconcile_pass_seconds:
            return 0
        if self._engine is None:
            # Of its own: two connections that are in use all the time are not to be taken from the other loops.
            self._engine = postgres.engine(settings)
        try:
            with postgres.reaching(settings), self._engine.begin() as connection:
                place = keeping.lead(connection, self._me, self._runtime.clock.now())
                if place is None:
                    # Another worker leads, or is just looking whether it may.
                    return 0
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                tour = self._on_tour(connection, self._engine, place)
                read = tour.step(connection, self._stopped.is_set)
                keeping.keep(connection, tour.place)
        except BaseException:
            # What was found in this step is not written: the next one reads anew what stands, and where to go on.
            self._tour = None
            raise
        tour.docket.tell()
        return read

    def _on_tour(self, connection: Connection, engine: sqlalchemy.Engine, place: Place) -> _Tour:
        """Return what this leader has in hand, or begin with what stands and the place that was reached."""
        if self._tour is None or place.leader != self._me:
            standing = StandingBook(keeping.standing(connection))
            docket = Docket(standing, connection, place.started_at)
            self._tour = _Tour(self._runtime, engine, docket, dataclasses.replace(place, leader=self._me))
        return self._tour


class _Tour:
    """What a leader has in hand."""

    def __init__(self, runtime: Runtime, engine: sqlalchemy.Engine, docket: Docket, place: Place) -> None:
        settings = runtime.settings
        self._clock = runtime.clock
        self.docket, self.place = docket, place
        self._chase = Chase(runtime, engine, docket)
        self._walk = Walk(runtime, engine, docket, self._chase)
        self._sums = Sums(runtime, engine, docket)
        self._buckets_schedule = Schedule(settings.reconcile_pass_seconds)
        self._sums_schedule = Schedule(settings.reconcile_pass_seconds)
        self._share = Share(settings.reconcile_load_percent)
        self._walking, self._summing = place.shard >= 0, False
        self._resumed = self._walking
        self._busy = 0.0
        self._summed_at: datetime | None = None

    def step(self, connection: Connection, stopped: Callable[[], bool]) -> int:
        """Do what is due, one slice of each kind in turn, for as long as the share allows."""
        self.docket.connection = connection
        began, turns = self._clock.monotonic(), (self._chase_on, self._walk_on, self._sum_on)
        turn = idle = read = 0
        while idle < len(turns) and not stopped():
            now, computed, before = self._clock.monotonic(), time.thread_time(), self.place.clients
            if now - began > STEP_SECONDS_MAX or not self._share.is_left(now):
                break
            worked = turns[turn % len(turns)](now)
            turn, idle = turn + 1, 0 if worked else idle + 1
            read += max(0, self.place.clients - before)
            after, computed = self._clock.monotonic(), time.thread_time() - computed
            self._busy += self._share.worked(after, computed=computed, waited=max(0.0, after - now - computed))
        return read

    def _chase_on(self, now: float) -> bool:
        due = self._chase.due(now)
        if due:
            self._chase.round(due)
        return bool(due)

    def _walk_on(self, now: float) -> bool:
        if not self._walking or self._resumed:
            if not self._resumed and not self._buckets_schedule.may_begin(now):
                return False
            self._begin_pass(now)
        if not self._buckets_schedule.due(now, self.place.clients):
            return False
        reached = self._walk.slice(self.place.shard, self.place.after)
        if reached is None:
            self._end_pass()
        else:
            clients = self.place.clients + reached.clients
            self.place = dataclasses.replace(self.place, shard=reached.shard, after=reached.client_id, clients=clients)
        return True

    def _begin_pass(self, now: float) -> None:
        self._buckets_schedule.begin(now, self._walk.clients(), done=self.place.clients)
        if not self._resumed:
            started_at = self._clock.now()
            self.place = dataclasses.replace(self.place, started_at=started_at)
            self.docket.begin_pass(started_at)
            self._busy = 0.0
        self._walking, self._resumed = True, False

    def _end_pass(self) -> None:
        place, now = self.place, self._clock.now()
        self.docket.end_pass(now, place.clients)
        last: dict[str, Any] = {
            "started_at": place.started_at.isoformat(),
            "finished_at": now.isoformat(),
            "clients": place.clients,
            "busy_seconds": round(self._busy, 3),
            "not_compared": summed(self.docket.missed.lasting()),
            "sums_at": None if self._summed_at is None else self._summed_at.isoformat(),
        }
        self.place = dataclasses.replace(place, shard=-1, after="", clients=0, passes=place.passes + 1, last_pass=last)
        self._walking = False

    def _sum_on(self, now: float) -> bool:
        if not self._summing:
            if not self._sums_schedule.may_begin(now):
                return False
            self._sums_schedule.begin(now, self._walk.clients())
            self._summing = True
        if not self._sums_schedule.due(now, self._sums.clients):
            return False
        self._summing = self._sums.slice()
        if not self._summing:
            self._summed_at = self._clock.now()
        return True
