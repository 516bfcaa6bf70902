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
    AssertOutcome,
    ExpireOutcome,
    Hold,
    Overdue,
    ReleaseOutcome,
    ReserveOutcome,
    ReserveReply,
    Settlement,
    SettleOutcome,
    SettleReply,
    StoredHold,
)
from billing.events.direct import DIRECT_EPOCH
from tests.simulation import laws
from tests.simulation.drafts import Drafts
from tests.simulation.excuses import Excuses

if TYPE_CHECKING:
    from billing.events.usage_event import UsageEvent
    from tests.simulation.process import Process
    from tests.simulation.world import World


_HOUR_MS: Final = 3_600_000


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
        self._retention_ms = int(world.settings.settled_retention_seconds * 1_000)
        #: Run to (client, credits) of what a bucket has charged and what has not been lost since.
        self._charged: dict[uuid.UUID, tuple[str, int]] = {}
        self._sums: dict[str, int] = {}
        #: Runs that succeeded, and what each costs.
        self.succeeded: dict[uuid.UUID, int] = {}
        self.drafts, self.excuses = Drafts(), Excuses(world, buckets)
        #: Runs that were settled, and until when their buckets remember it at least.
        self._final: dict[uuid.UUID, int] = {}
        #: Settlements that were late, each with its epoch: one that Redis forgot may have been made before.
        self._late: set[tuple[str, int]] = set()
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
        own = self._held(client_id, hold.run_id)
        before = 0 if own is None else sum(own.grants.values())
        free = min(self._free(client_id), self._usable(client_id, hold.sku)) + before
        reply: ReserveReply = self._buckets.reserve(hold, forget=forget)
        world.tell(hold.run_id, f"reserve {hold.credits}: {reply.outcome.name}")
        if reply.outcome in (ReserveOutcome.HELD, ReserveOutcome.TAKEN_OVER):
            self.admitted += 1
            self.excuses.held(hold, own)
            self.drafts.drawn(hold.run_id, hold.lines)
            laws.l6_only_the_trusted_admit(world, client_id)
            # A takeover that needs nothing more is no admission: its hold was admitted before, or forced.
            if own is None or hold.credits > own.credits:
                laws.l1_ceiling(client_id, asked=hold.credits, free=free)
        elif reply.outcome is ReserveOutcome.INSUFFICIENT:
            self.refused += 1
        return reply

    def settle(self, settlement: Settlement) -> SettleReply:
        """Settle, and count what was charged: once, late if nothing was held, and what was used (L3, L4)."""
        run_id, client_id, credits_ = settlement.run_id, settlement.client_id, sum(settlement.amounts)
        is_held = self._held(client_id, run_id) is not None
        is_final = self._final.get(run_id, -1) >= self._world.clock.elapsed_ms
        is_known = is_final or self._world.redis.remembers(run_id)
        before = self._buckets.balance(client_id) if is_known else None
        reply: SettleReply = self._buckets.settle(settlement)
        self._world.tell(run_id, f"settle {credits_}: {reply.outcome.name}, late {reply.late}")
        if is_known:
            changed = self._buckets.balance(client_id) != before
            laws.l4_settled_is_final(run_id, reply, is_final=is_final, changed=changed)
        if reply.outcome is SettleOutcome.SETTLED:
            laws.l4_late_without_hold(run_id, is_late=reply.late, is_held=is_held)
            laws.l3_charges_what_was_used(self, settlement)
            self.late += reply.late
            self.debts += reply.debt > 0
            if reply.late:
                self._late.add((settlement.settlement_id, json.loads(reply.event or b"")["epoch"]))
            self._final[run_id] = self._world.clock.elapsed_ms + self._retention_ms
            self.excuses.settled(run_id, settlement.settlement_id)
            self._charge(run_id, client_id, credits_)
            if run_id in self._world.log.history:
                self.logged(self._world.log.history[run_id])
        return reply

    def finished(self, run_id: uuid.UUID, credits_: int, process: Process) -> None:
        """Remember that a run succeeded, what it costs, and which process knows of it."""
        self.succeeded[run_id] = credits_
        self.excuses.finished(run_id, process, is_safe=run_id in self.rows)

    def check_ack(self, run_id: uuid.UUID, process: Process) -> None:
        """Check a message that is about to be acked."""
        laws.l3_none_kept_back(self, run_id, process)

    def stage(self, client_id: str, run_id: uuid.UUID, token: str, lines: bytes, *, head: bytes = b"") -> bool:
        """Stage, and remember which draft the hold has now."""
        taken: bool = self._buckets.stage(client_id, run_id, token, lines, head=head)
        self.drafts.staged(run_id, lines, taken=taken)
        return taken

    def assert_hold(self, hold: Hold) -> AssertOutcome:
        """Assert, and remember that Redis has the hold, and with which draft."""
        before = self._held(hold.client_id, hold.run_id)
        outcome: AssertOutcome = self._buckets.assert_hold(hold)
        self._world.tell(hold.run_id, f"assert: {outcome.name}")
        if (held := self._held(hold.client_id, hold.run_id)) is not None:
            self.excuses.held(hold, before, asserted=True)
            self.drafts.drawn(hold.run_id, held.lines)
        return outcome

    def overdue(self, shard: int, count: int) -> Overdue:
        """Sweep, and remember which drafts the reaper was shown."""
        found: Overdue = self._buckets.overdue(shard, count)
        self.drafts.shown(found.held)
        return found

    def release(self, client_id: str, run_id: uuid.UUID, token: str) -> ReleaseOutcome:
        """Release, and check that no charge is on its way to the bucket that the hold has kept covered (L1)."""
        outcome: ReleaseOutcome = self._buckets.release(client_id, run_id, token)
        if outcome is ReleaseOutcome.RELEASED:
            laws.l1_no_room_before_its_charge(self._world, client_id, run_id)
        self._world.tell(run_id, f"release: {outcome.name}")
        return outcome

    def expire(self, client_id: str, run_id: uuid.UUID) -> ExpireOutcome:
        """Expire, and look whether somebody knows of a run that succeeded."""
        outcome: ExpireOutcome = self._buckets.expire(client_id, run_id)
        self._world.tell(run_id, f"expire: {outcome.name}")
        if outcome is ExpireOutcome.EXPIRED:
            self.excuses.expired(run_id)
        return outcome

    def row_written(self, event: UsageEvent) -> None:
        """Remember a row of the log, the only one of its run, and believe it."""
        laws.l4_one_row(self.rows, event)
        laws.l4_late_without_hold(event.run_id, is_late=event.late, is_held=self._was_held(event))
        credits_ = sum(line.credits for line in event.lines)
        self.rows[event.run_id] = Row(event.client_id, event.settlement_id, credits_, event.lines)
        self.runs.append(event.run_id)
        self.excuses.logged(event.run_id)
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

    def redis_lost(self, knew: Iterable[uuid.UUID]) -> None:
        """Forget what Redis has lost: a charge stands whose event is in the log, at the broker or in an outbox.

        `knew`: the runs that it had a hold or an event of.
        """
        excuses = self.excuses
        for run_id in self._charged.keys() - self.rows.keys() - excuses.in_outboxes() - excuses.at_the_broker():
            client_id, credits_ = self._charged.pop(run_id)
            self._sums[client_id] -= credits_
        self.drafts.lost(
            hold for shard in range(self._world.settings.shards) for hold in self._buckets.held(None, shard)
        )
        remembers = self._world.redis.remembers
        self._final = {run_id: until_ms for run_id, until_ms in self._final.items() if remembers(run_id)}
        excuses.redis_lost(knew)

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
        self.excuses.rested()

    def _held(self, client_id: str, run_id: uuid.UUID) -> StoredHold | None:
        return next((held for held in self._buckets.held(client_id) if held.run_id == run_id), None)

    def _was_held(self, event: UsageEvent) -> bool:
        """Whether there was a hold at the settle that an event is of; a direct event is of none."""
        return event.epoch != DIRECT_EPOCH and (event.settlement_id, event.epoch) not in self._late

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
