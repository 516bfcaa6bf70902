"""Knows what must be true, by its own count, and says which law does not hold (DESIGN's L1 to L6).

It stands between the processes and the buckets and sees each effect once it is done, whether or not its answer
arrives. It adds up what was granted, what was charged through a bucket and what is held, and never asks the code that
is under test what a balance ought to be.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from billing.events.usage_event import UsageEvent
    from tests.simulation.process import Process
    from tests.simulation.world import World


class LawBroken(AssertionError):
    """A law does not hold; the seed and the step say where."""


class Auditor:
    """The buckets as the processes see them, and the count that is kept beside them."""

    def __init__(self, world: World, buckets: Any) -> None:
        self._world, self._buckets = world, buckets
        #: Run to (client, credits) of what a bucket has charged and what has not been lost since.
        self._charged: dict[uuid.UUID, tuple[str, int]] = {}
        self._sums: dict[str, int] = {}
        #: Runs that succeeded, and what each costs.
        self.succeeded: dict[uuid.UUID, int] = {}
        #: Runs that recorded what Redis did not take: what their draft says may be charged, should their worker die.
        self.unstaged: dict[uuid.UUID, int] = {}
        #: Runs that two faults have cost their charge, the stated limit: they are counted.
        self.excused: set[uuid.UUID] = set()
        #: Run to the processes whose bodies of it came to their ends.
        self._finishers: dict[uuid.UUID, list[Process]] = {}
        #: Run to the settlement that a bucket took.
        self._settlers: dict[uuid.UUID, str] = {}
        #: Run to when it was first admitted, and when Redis last forgot something.
        self._admitted_ms: dict[uuid.UUID, int] = {}
        self._lost_ms = -1
        #: Runs of whose events the broker did not take one.
        self._not_taken: set[uuid.UUID] = set()
        self.admitted = self.refused = self.late = self.debts = 0

    def __getattr__(self, name: str) -> Any:
        """Every verb that is not audited goes through."""
        return getattr(self._buckets, name)

    def reserve(self, hold: Hold, *, forget: Sequence[tuple[int, str]] = ()) -> ReserveReply:
        """Reserve, and check the ceiling (L1) and the trust (L6) of what was admitted."""
        world, client_id = self._world, hold.client_id
        own = next((held for held in self._buckets.held(client_id) if held.run_id == hold.run_id), None)
        before = 0 if own is None else sum(own.grants.values())
        free = self._free(client_id) + before
        reply: ReserveReply = self._buckets.reserve(hold, forget=forget)
        world.tell(hold.run_id, f"reserve {hold.credits}: {reply.outcome.name}")
        if reply.outcome in (ReserveOutcome.HELD, ReserveOutcome.TAKEN_OVER):
            self.admitted += 1
            self._admitted_ms.setdefault(hold.run_id, world.clock.elapsed_ms)
            world.admitted(client_id)
            # A takeover that needs nothing more is no admission: its hold was admitted before, or forced.
            if (own is None or hold.credits > own.credits) and hold.credits > max(free, 0):
                raise LawBroken(f"L1: {client_id} has {free} credits, and {hold.credits} were admitted")
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

    def finished_by(self, run_id: uuid.UUID, process: Process) -> None:
        """Remember which process knows that a run succeeded."""
        self._finishers.setdefault(run_id, []).append(process)

    def not_taken(self, body: bytes) -> None:
        """Remember that the broker has not confirmed an event."""
        self._not_taken |= _runs([body])

    def check_ack(self, run_id: uuid.UUID, process: Process) -> None:
        """Check that a message whose settle was refused goes only once its charge was given to the broker (L3)."""
        if run_id in process.refused & process.knows() - self._not_taken:
            raise LawBroken(f"L3: process {process.number} kept the charge of run {run_id} to itself")

    def excuse_what_is_lost(self, killed: Process | None = None) -> None:
        """Excuse the charges that nobody knows of any more, if both who knew of them are gone: its process and Redis.

        A process that lives may forget no charge that is not safe; nor may one that dies, while Redis forgets nothing.
        One that was told of a lost bucket before it died has tried to publish the charge, and the broker was away.
        """
        for run_id in self.succeeded.keys() - self.excused - self._known():
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
            why = "its process and Redis' tail were both lost"
            if killed is not None and run_id in killed.refused:
                if run_id not in self._not_taken:
                    raise LawBroken(f"L3: a killed process kept the charge of run {run_id} to itself: {story}")
                why += ", and the broker away"
            self.excused.add(run_id)
            self._world.counts[f"excused: {why}"] += 1

    def release(self, client_id: str, run_id: uuid.UUID, token: str) -> ReleaseOutcome:
        """Release, and check that no charge is on its way to the bucket that the hold has kept covered (L1)."""
        outcome: ReleaseOutcome = self._buckets.release(client_id, run_id, token)
        log = self._world.log
        if outcome is ReleaseOutcome.RELEASED and run_id in self.succeeded and not log.is_told(client_id, run_id):
            raise LawBroken(f"L1: run {run_id} gave its hold back before its charge: {self._world.story(run_id)}")
        self._world.tell(run_id, f"release: {outcome.name}")
        return outcome

    def expire(self, client_id: str, run_id: uuid.UUID) -> ExpireOutcome:
        """Expire, and remember that."""
        outcome: ExpireOutcome = self._buckets.expire(client_id, run_id)
        self._world.tell(run_id, f"expire: {outcome.name}")
        return outcome

    def logged(self, event: UsageEvent) -> None:
        """Believe the log, where it has a smaller charge of a run than the bucket made: the rest is given back."""
        self._charge(event.run_id, event.client_id, sum(line.credits for line in event.lines), new=False)

    def redis_lost(self, *, forgot: bool) -> None:
        """Forget what Redis has lost: a charge stands whose event is in the log, at the broker or in an outbox."""
        if forgot:
            self._lost_ms = self._world.clock.elapsed_ms
        for run_id in self._charged.keys() - self._in_outboxes() - self._safe():
            client_id, credits_ = self._charged.pop(run_id)
            self._sums[client_id] -= credits_
        self.excuse_what_is_lost()

    def _in_outboxes(self) -> set[uuid.UUID]:
        shards = range(self._world.settings.shards)
        entries = (entry for shard in shards for entry in self._buckets.outbox(shard, older_than_ms=0, count=1_000_000))
        return _runs(entry.event for entry in entries)

    def _safe(self) -> set[uuid.UUID]:
        """Return the runs that are in the log, or at the broker."""
        return self._world.log.history.keys() | _runs(body for queue in self._world.broker.usage for body in queue)

    def _known(self) -> set[uuid.UUID]:
        """Return the runs that are safe, or that Redis, a living process or a message knows of."""
        world, shards = self._world, range(self._world.settings.shards)
        held = {hold.run_id for shard in shards for hold in self._buckets.held(None, shard)}
        known = self._safe() | held | self._in_outboxes()
        for process in world.processes:
            known |= process.knows()
        return known | {message.run_id for message in (*world.broker.tasks, *world.unacked)}

    def check(self) -> None:
        """Check every law at a moment when nothing is on its way, nothing runs and nothing is owed."""
        world, log = self._world, self._world.log
        if log.letters:
            raise LawBroken(f"L3: {len(log.letters)} events are refused by the log: {log.letters[0]}")
        charged = {run_id: sum(line.credits for line in event.lines) for run_id, event in log.history.items()}
        for run_id in self.succeeded.keys() - charged.keys() - self.excused:
            raise LawBroken(f"L3: run {run_id} succeeded and is not in the log: {world.story(run_id)}")
        for run_id in charged.keys() - self.succeeded.keys():
            raise LawBroken(f"L3: run {run_id} is in the log and did not succeed: {world.story(run_id)}")
        for run_id, credits_ in charged.items():
            if credits_ != self.succeeded[run_id] and credits_ != self.unstaged.get(run_id):
                raise LawBroken(f"L3: run {run_id} costs {self.succeeded[run_id]} and was charged {credits_}")
        spent = dict.fromkeys(log.epochs, 0)
        for event in log.history.values():
            spent[event.client_id] += charged[event.run_id]
        for client_id in log.epochs:
            self._check_client(client_id, spent[client_id])

    def _check_client(self, client_id: str, spent: int) -> None:
        log = self._world.log
        held = self._buckets.held(client_id)
        if held:
            raise LawBroken(f"L5: {client_id} has {len(held)} holds, and nothing runs: {held[0]}")
        balance = self._buckets.balance(client_id)
        granted = sum(row.credits for row in log.grants.values() if row.client_id == client_id)
        parts = balance.available + balance.held + balance.spent + balance.expired + balance.voided
        if balance.granted + balance.owed != parts:
            raise LawBroken(f"L2: {client_id}: granted {balance.granted} + owed {balance.owed} is not {parts}")
        if (balance.granted, balance.spent, balance.held) != (granted, spent, 0):
            raise LawBroken(f"L6: {client_id}: granted {granted}, spent {spent} by the log; the bucket has {balance}")
        if min(balance.available, balance.owed) or balance.available - balance.owed != granted - spent:
            raise LawBroken(f"L6: {client_id}: {granted - spent} credits are left by the log; the bucket has {balance}")

    def _free(self, client_id: str) -> int:
        log = self._world.log
        granted = sum(row.credits for row in log.grants.values() if row.client_id == client_id)
        held = sum(sum(hold.grants.values()) for hold in self._buckets.held(client_id))
        return granted - held - self._sums.get(client_id, 0)

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
