"""Knows what must be true, by its own count, and says which law does not hold (L1 to L6).

It stands between the processes and the buckets and sees each effect once it is done, whether or not its answer
arrives. It adds up what was granted, what was charged through a bucket and what is held, and never asks the code that
is under test what a balance ought to be.
"""

from __future__ import annotations

import collections
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from billing.core.clock import from_milliseconds
from billing.core.shards import shard_of
from billing.credits.values import (
    ExpireOutcome,
    Hold,
    ReleaseOutcome,
    ReserveOutcome,
    ReserveReply,
    Settlement,
    SettleOutcome,
    SettleReply,
)
from tests.simulation import laws
from tests.simulation.broken import LawBroken
from tests.simulation.chance import BEGINNING_MS

if TYPE_CHECKING:
    from billing.events.usage_event import UsageEvent
    from tests.simulation.process import Process
    from tests.simulation.world import World


_HOUR_MS: Final = 3_600_000
#: The stated limit.
_BOTH: Final = "its process and Redis' tail were both lost"


class Row(NamedTuple):
    """A row of the history."""

    client_id: str
    settlement_id: str
    credits: int
    lines: Sequence[Any]


class Auditor:
    """The buckets as the processes see them, and the count that is kept beside them."""

    def __init__(self, world: World, buckets: Any) -> None:
        self._world, self._buckets = world, buckets
        #: Run to (client, credits) of what a bucket has charged and what has not been lost since.
        self._charged: dict[uuid.UUID, tuple[str, int]] = {}
        self._sums: dict[str, int] = {}
        #: Runs that succeeded, and what each costs.
        self.succeeded: dict[uuid.UUID, int] = {}
        #: Those of them that are not in the log.
        self._unsafe: set[uuid.UUID] = set()
        #: Runs that recorded what Redis did not take: what their draft says may be charged, should their worker die.
        self.unstaged: dict[uuid.UUID, int] = {}
        #: Runs that two faults have cost their charge, the stated limit: they are counted.
        self.excused: set[uuid.UUID] = set()
        #: Run to the processes whose bodies of it came to their ends.
        self._finishers: dict[uuid.UUID, list[Process]] = {}
        #: Run to when a body of it first came to its end: a result backend writes over no success.
        self._stored_ms: dict[uuid.UUID, int] = {}
        #: Run to the settlement that a bucket took.
        self._settlers: dict[uuid.UUID, str] = {}
        #: Run to when it was first admitted, and when Redis last forgot something.
        self._admitted_ms: dict[uuid.UUID, int] = {}
        self._lost_ms = -1
        #: Runs of whose events the broker did not take one.
        self.never_taken: set[uuid.UUID] = set()
        #: What the log has, as it was when it was written; and its credits by client, SKU and hour.
        self.rows: dict[uuid.UUID, Row] = {}
        self.runs: list[uuid.UUID] = []
        self.corrections: collections.Counter[str] = collections.Counter()
        #: What each grant had paid at the last rest, less what has come back to it.
        self.paid: collections.Counter[int] = collections.Counter()
        self.used: collections.Counter[tuple[str, str, datetime]] = collections.Counter()
        self.admitted = self.refused = self.late = self.debts = 0

    def __getattr__(self, name: str) -> Any:
        """Every verb that is not audited goes through."""
        return getattr(self._buckets, name)

    def reserve(self, hold: Hold, *, forget: Sequence[tuple[int, str]] = ()) -> ReserveReply:
        """Reserve, and check the ceiling (L1) and the trust (L6) of what was admitted."""
        world, client_id = self._world, hold.client_id
        own = next((held for held in self._buckets.held(client_id) if held.run_id == hold.run_id), None)
        before = 0 if own is None else sum(own.grants.values())
        free = min(self._free(client_id), self._usable(client_id, hold.sku)) + before
        reply: ReserveReply = self._buckets.reserve(hold, forget=forget)
        world.tell(hold.run_id, f"reserve {hold.credits}: {reply.outcome.name}")
        if reply.outcome in (ReserveOutcome.HELD, ReserveOutcome.TAKEN_OVER):
            self.admitted += 1
            self._admitted_ms.setdefault(hold.run_id, world.clock.elapsed_ms)
            laws.l6_only_the_trusted_admit(world, client_id)
            # A takeover that needs nothing more is no admission: its hold was admitted before, or forced.
            if own is None or hold.credits > own.credits:
                laws.l1_ceiling(client_id, asked=hold.credits, free=free)
        elif reply.outcome is ReserveOutcome.INSUFFICIENT:
            self.refused += 1
        return reply

    def settle(self, settlement: Settlement) -> SettleReply:
        """Settle, and count what was charged."""
        reply: SettleReply = self._buckets.settle(settlement)
        self._world.tell(
            settlement.run_id, f"settle {sum(settlement.amounts)}: {reply.outcome.name}, late {reply.late}"
        )
        if reply.outcome is SettleOutcome.SETTLED:
            self.late += reply.late
            self.debts += reply.debt > 0
            self._settlers[settlement.run_id] = settlement.settlement_id
            self._charge(settlement.run_id, settlement.client_id, sum(settlement.amounts))
            if settlement.run_id in self._world.log.history:
                self.logged(self._world.log.history[settlement.run_id])
        return reply

    def finished(self, run_id: uuid.UUID, credits_: int, process: Process) -> None:
        """Remember that a run succeeded, what it costs, and which process knows of it."""
        self.succeeded[run_id] = credits_
        if run_id not in self.rows:
            self._unsafe.add(run_id)
        self._finishers.setdefault(run_id, []).append(process)
        self._stored_ms.setdefault(run_id, self._world.clock.elapsed_ms)

    def not_taken(self, body: bytes) -> None:
        """Remember that the broker has not confirmed an event, which a process has tried to publish."""
        self.never_taken |= _runs([body])

    def check_ack(self, run_id: uuid.UUID, process: Process) -> None:
        """Check a message that is about to be acked."""
        laws.l3_none_kept_back(self, run_id, process)

    def excuse_what_is_lost(self, killed: Process | None = None, *, why: str = _BOTH) -> None:
        """Excuse the charges that nobody knows of any more, if both who knew of them are gone: its process and Redis.

        A process that lives may forget no charge that is not safe; nor may one that dies, while Redis forgets nothing.
        One that was told of a lost bucket before it died has tried to publish the charge: the broker was away, or it
        died in the attempt.
        """
        for run_id in sorted(self._unsafe - self.excused - self._known() if self._unsafe else ()):
            settlement = self._settlers.get(run_id)
            living = [
                process
                for process in self._world.processes
                if (process in self._finishers[run_id] if settlement is None else settlement in process.settlements)
            ]
            story = self._world.story(run_id)
            if living:
                raise LawBroken(f"L3: process {living[0].number} lives and forgot the charge of run {run_id}: {story}")
            if self._lost_ms < self._admitted_ms[run_id]:
                raise LawBroken(f"L3: a killed process lost the charge of run {run_id}, and Redis nothing: {story}")
            told = why
            if killed is not None and run_id in killed.refused:
                if run_id not in self.never_taken:
                    raise LawBroken(f"L3: a killed process kept the charge of run {run_id} to itself: {story}")
                told += " before its event was out"
            self.excused.add(run_id)
            self._world.counts[f"excused: {told}"] += 1

    def release(self, client_id: str, run_id: uuid.UUID, token: str) -> ReleaseOutcome:
        """Release, and check that no charge is on its way to the bucket that the hold has kept covered (L1)."""
        outcome: ReleaseOutcome = self._buckets.release(client_id, run_id, token)
        if outcome is ReleaseOutcome.RELEASED:
            laws.l1_no_room_before_its_charge(self._world, client_id, run_id)
        self._world.tell(run_id, f"release: {outcome.name}")
        return outcome

    def expire(self, client_id: str, run_id: uuid.UUID) -> ExpireOutcome:
        """Expire, and remember that.

        Of a run that succeeded only where its hold is of a second body: the process of the first died with its charge,
        Redis lost the first hold after that success, and the second process died as well. The stored result is older
        than the hold then, as one of an earlier submission is, and the reaper charges neither.
        """
        hold = next((held for held in self._buckets.held(client_id) if held.run_id == run_id), None)
        outcome: ExpireOutcome = self._buckets.expire(client_id, run_id)
        self._world.tell(run_id, f"expire: {outcome.name}")
        if outcome is ExpireOutcome.EXPIRED and hold is not None and run_id in self._unsafe:
            reserved_ms = hold.created_ms - BEGINNING_MS
            if self._stored_ms[run_id] <= self._lost_ms <= reserved_ms:
                self.excuse_what_is_lost(why=f"{_BOTH}, and who ran it again")
        return outcome

    def row_written(self, event: UsageEvent) -> None:
        """Remember a row of the log, and believe it."""
        credits_ = sum(line.credits for line in event.lines)
        self.rows[event.run_id] = Row(event.client_id, event.settlement_id, credits_, event.lines)
        self.runs.append(event.run_id)
        self._unsafe.discard(event.run_id)
        hour = from_milliseconds(event.occurred_at - event.occurred_at % _HOUR_MS)
        for line in event.lines:
            self.used[event.client_id, line.sku, hour] += line.credits
        self.logged(event)

    def corrected(self, run_id: uuid.UUID, credits_: int, grants: Mapping[int, int]) -> None:
        """Remember what a correction gave back, in the hour in which it did."""
        row, now = self.rows[run_id], self._world.clock.ms
        hour = from_milliseconds(now - now % _HOUR_MS)
        self.used[row.client_id, row.lines[0].sku, hour] += credits_
        self.corrections[row.client_id] += credits_
        self.paid.update(grants)
        # From now on the client may use it; its bucket learns of it later.
        self._sums[row.client_id] = self._sums.get(row.client_id, 0) + credits_

    def granted(self) -> collections.Counter[str]:
        """Return what each client was granted."""
        found: collections.Counter[str] = collections.Counter()
        for row in self._world.log.grants.values():
            found[row.client_id] += row.credits
        return found

    def logged(self, event: UsageEvent) -> None:
        """Believe the log, where it has a smaller charge of a run than the bucket made: the rest is given back."""
        self._charge(event.run_id, event.client_id, sum(line.credits for line in event.lines), new=False)

    def redis_lost(self, *, forgot: bool) -> None:
        """Forget what Redis has lost: a charge stands whose event is in the log, at the broker or in an outbox."""
        if forgot:
            self._lost_ms = self._world.clock.elapsed_ms
        for run_id in self._charged.keys() - self.rows.keys() - self._in_outboxes() - self._at_the_broker():
            client_id, credits_ = self._charged.pop(run_id)
            self._sums[client_id] -= credits_
        self.excuse_what_is_lost()

    def _in_outboxes(self) -> set[uuid.UUID]:
        shards = range(self._world.settings.shards)
        entries = (entry for shard in shards for entry in self._buckets.outbox(shard, older_than_ms=0, count=1_000_000))
        return _runs(entry.event for entry in entries)

    def _at_the_broker(self) -> set[uuid.UUID]:
        return _runs(body for queue in self._world.broker.usage for body in queue)

    def _known(self) -> set[uuid.UUID]:
        """Return the runs that the broker, Redis, a living process or a message knows of."""
        world, shards = self._world, range(self._world.settings.shards)
        held = {hold.run_id for shard in shards for hold in self._buckets.held(None, shard)}
        known = self._at_the_broker() | held | self._in_outboxes()
        for process in world.processes:
            known |= process.knows()
        return known | {message.run_id for message in (*world.broker.tasks, *world.unacked)}

    def check(self) -> None:
        """Check every law at a moment when nothing is on its way, nothing runs and nothing is owed."""
        for law in laws.AT_REST:
            law(self._world)
        # All laws hold: what the buckets have charged is what the log says.
        self._sums = dict(self.corrections)
        for row in self.rows.values():
            self._sums[row.client_id] = self._sums.get(row.client_id, 0) + row.credits
        self.paid = laws.paid(self._world)
        self._charged = {run_id: (row.client_id, row.credits) for run_id, row in self.rows.items()}

    def _free(self, client_id: str) -> int:
        log = self._world.log
        granted = sum(row.credits for row in log.grants.values() if row.client_id == client_id)
        held = sum(sum(hold.grants.values()) for hold in self._buckets.held(client_id))
        return granted - held - self._sums.get(client_id, 0)

    def _usable(self, client_id: str, sku: str) -> int:
        """Return the most that the grants which may pay for a SKU now can have left, by what they had paid at rest."""
        found, now_ms = 0, self._world.clock.ms
        held = collections.Counter[int]()
        for hold in self._buckets.held(client_id):
            held.update(hold.grants)
        for row in self._world.log.grants_of(client_id):
            # A void is known to its bucket later.
            is_over = 0 < row.terms.expires_ms <= now_ms
            if not is_over and row.terms.fits(sku):
                found += max(0, row.credits - held[row.grant_id] - max(0, self.paid[row.grant_id]))
        return found

    def _charge(self, run_id: uuid.UUID, client_id: str, credits_: int, *, new: bool = True) -> None:
        before = self._charged[run_id][1] if run_id in self._charged else None
        if before is None and not new:
            return
        smaller = credits_ if before is None else min(before, credits_)
        self._charged[run_id] = client_id, smaller
        self._sums[client_id] = self._sums.get(client_id, 0) + smaller - (before or 0)

    def shard_of(self, client_id: str) -> int:
        """Return the client's shard."""
        return shard_of(client_id, self._world.settings.shards)


def _runs(bodies: Iterable[bytes]) -> set[uuid.UUID]:
    """Return the runs of usage events; a marker is of none."""
    return {uuid.UUID(found) for body in bodies if (found := json.loads(body).get("run_id"))}
