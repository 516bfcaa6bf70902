"""How a process' runs end, and how it keeps what they hold when Redis is lost: settle, release, expire, assert.

What was not answered is sent again until it is, as billing's lifecycle does; an answer that cannot be is a `Breach`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import redis

from billing.credits.values import AssertOutcome, ExpireOutcome, ReleaseOutcome, SettleOutcome, SettleReply
from billing.events.direct import encode_direct
from tests.contract.faulty.calls import Calls
from tests.contract.faulty.reserving import Reserving
from tests.contract.faulty.runs import Run, Runs, State
from tests.contract.faulty.values import Asserted, MovedClock, Recovered, shard
from tests.contract.servers import Server

#: Of so many events one is published once more.
_TWICE_EVERY: Final = 25


class RunVerbs(Reserving):
    """A process' work on its runs."""

    def __init__(
        self, calls: Calls, runs: Runs, clock: MovedClock, stopped: Callable[[str], bool], server: Server
    ) -> None:
        super().__init__(calls, runs, clock, stopped)
        self._server = server
        #: What is to be published, and the outbox entries of it.
        self.events: list[bytes] = []
        self.unconfirmed: list[tuple[int, str]] = []

    def settle(self, run: Run) -> None:
        """Charge a run: one that holds, or one whose hold was given back before it finished."""
        run.covered = run.state is State.HELD
        self._runs.use(run)
        self._pay(run)

    def release(self, run: Run) -> None:
        """Give back the hold of a run that did not succeed."""

        def act() -> ReleaseOutcome:
            return self._calls.buckets.release(run.client_id, run.run_id, run.hold.token)

        reply = self._call(run, "release", act)
        if reply is None:
            self._runs.become(run, State.LEFT)
        elif reply is ReleaseOutcome.RELEASED or (reply is ReleaseOutcome.NOTHING and self._calls.cut):
            self._runs.over(run)
            self._twice(run, "release", act, ReleaseOutcome.NOTHING)
        elif reply is ReleaseOutcome.SETTLED and run.succeeded:
            self._runs.over(run)
        else:
            self._breach(run, f"L4: it holds, and release answered {reply}")

    def die(self, run: Run) -> None:
        """Die, so that the lease of a run ends."""
        self._runs.become(run, State.LEFT)
        if self._expire(run) is ExpireOutcome.NOTHING and not self._calls.cut and not run.succeeded:
            self._breach(run, "L5: it held, and there was nothing to expire")

    def charge_directly(self, run: Run) -> None:
        """Charge without Redis, as a process does that ends; what Redis holds, or has taken, is left to others."""
        run.unsure = run.state is State.OWED  # its settle may have reached Redis
        if not run.unsure:
            run.covered = True
            self._runs.use(run)
        settlement = run.owed
        assert settlement is not None
        self._runs.succeed(run, sum(settlement.amounts), directly=True)
        head = self._runs.head(run.run_id, run.client_id, run.hold.attempt)
        self._publish(encode_direct(head, run.used, settlement_id=settlement.settlement_id, occurred_at=self._clock.ms))
        self._calls.counts["direct events"] += 1
        self._runs.become(run, State.REAPED)

    def go_on(self, run: Run) -> None:
        """Ask again what was not answered."""
        match run.state:
            case State.ASKED:
                self._ask(run)
            case State.AGAIN:
                self._ask_again(run, run.hold)
            case State.OWED:
                self._pay(run)
            case State.LEFT:
                self._expire(run)
            case State.REAPED:
                self._reap(run)
            case _:
                self._breach(run, "it waits for nothing")

    # When Redis was lost.

    def assert_holds(self) -> Asserted:
        """Assert what every running attempt holds."""
        self.life += 1
        owed = [run for run in self._runs.waiting.values() if run.state is State.AGAIN or run.covered]
        running = [*self._runs.held, *(run for run in owed if run.state is not State.REAPED)]
        lost = 0
        for run in running:
            hold = msgspec.structs.replace(run.hold, credits=run.held)
            outcome = self._calls.surely(self._calls.buckets.assert_hold, hold)
            if outcome is AssertOutcome.CORRUPT or (outcome is AssertOutcome.SETTLED and not run.settlements):
                self._breach(run, f"L6: it holds, and assert_hold answered {outcome}")
            lost += outcome is AssertOutcome.ASSERTED
        return Asserted(runs=frozenset(run.run_id for run in running), lost=lost)

    def recovered(self, told: Recovered) -> int:
        """Note what a rebuild has found; return how many ends of runs had been lost."""
        lost = 0
        for run_id in told.orphans & self._runs.all.keys():
            run = self._runs.all[run_id]
            if run.state is State.GONE and run.had:
                self._runs.become(run, State.LEFT)
                lost += 1
        for run_id in told.logged & self._runs.all.keys():
            run = self._runs.all[run_id]
            if run.state is State.HELD and not run.succeeded:
                self._breach(run, "L3: it goes on, and the log has charged it")
            if run.state is State.HELD:
                self._runs.over(run)
        return lost

    # Each with its answers.

    def _pay(self, run: Run) -> None:
        settlement = run.owed
        assert settlement is not None
        reply = self._call(run, "settle", lambda: self._calls.buckets.settle(settlement))
        if reply is None:
            self._runs.become(run, State.OWED)
            return
        charged = reply.outcome is SettleOutcome.SETTLED
        if not charged and (reply.outcome is not SettleOutcome.ALREADY or reply.settlement_id not in run.settlements):
            self._breach(run, f"L4: settle answered {reply}")
        if charged and reply.late and run.covered:
            self._breach(run, f"L5: it holds, and was settled late: {reply}")
        self._runs.succeed(run, sum(settlement.amounts))
        run.life = self.life
        self._published(run, reply)
        self._runs.become(run, State.CHARGED)
        if charged:
            self._twice(run, "settle", lambda: self._calls.buckets.settle(settlement), SettleOutcome.ALREADY)

    def _published(self, run: Run, reply: SettleReply) -> None:
        """Publish a settled event, as far as the answer has it; the relay has it otherwise."""
        if reply.event is not None and reply.entry_id is not None:
            self._publish(reply.event)
            self.unconfirmed.append((shard(run.client_id), reply.entry_id))

    def _publish(self, event: bytes) -> None:
        self.events.append(event)
        if self._calls.once_in(_TWICE_EVERY):
            self.events.append(event)
            self._calls.counts["events published twice"] += 1

    def _reap(self, run: Run) -> None:
        """Resolve the hold of a run that was charged without Redis: settle its draft, or expire it."""
        if run.unsure or self._calls.once_in(2):
            run.unsure = True  # an expire may have been carried out from now on
            self._expire(run)
        else:
            self._runs.use(run)
            self._pay_reaped(run)

    def _pay_reaped(self, run: Run) -> None:
        settlement = run.owed
        assert settlement is not None
        reply = self._call(run, "settle", lambda: self._calls.buckets.settle(settlement))
        if reply is None:
            run.unsure = True
            return
        known = reply.outcome is SettleOutcome.ALREADY and reply.settlement_id in run.settlements
        if reply.outcome is not SettleOutcome.SETTLED and not known:
            self._breach(run, f"L4: a reaper's settle answered {reply}")
        self._published(run, reply)
        run.life = self.life
        self._runs.become(run, State.CHARGED)

    def _expire(self, run: Run) -> ExpireOutcome | None:
        """End the lease of a run by hand, and give its hold back."""
        try:
            self._server.end_lease(run.client_id, run.run_id)
        except redis.RedisError:  # it is down
            return None
        reply = self._call(run, "expire", lambda: self._calls.buckets.expire(run.client_id, run.run_id))
        if reply in (ExpireOutcome.EXPIRED, ExpireOutcome.NOTHING):
            self._runs.over(run)
        elif reply not in (ExpireOutcome.NOT_DUE, None):
            self._breach(run, f"L5: expire answered {reply}")
        return reply
