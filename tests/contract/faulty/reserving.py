"""How a process' runs get their holds and keep them: reserve, a takeover by another attempt, renew, stage.

An answer that cannot be, by all that the process was told before, is a `Breach`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NoReturn, TypeVar

from billing.credits.values import Hold, RenewOutcome, ReserveOutcome, ReserveReply
from tests.contract.faulty.calls import Calls
from tests.contract.faulty.runs import Run, Runs, State
from tests.contract.faulty.values import Breach, MovedClock, shard

T = TypeVar("T")

#: Of so many calls that were answered one is sent once more.
AGAIN_EVERY: Final = 40
_NO: Final = (ReserveOutcome.INSUFFICIENT, ReserveOutcome.SUSPENDED, ReserveOutcome.CLOSED)


class Reserving:
    """A process' work on runs that begin. `stopped` says whether a client is known to be suspended or closed."""

    def __init__(self, calls: Calls, runs: Runs, clock: MovedClock, stopped: Callable[[str], bool]) -> None:
        self._calls, self._runs, self._clock, self._stopped = calls, runs, clock, stopped
        #: How often Redis was lost.
        self.life = 0
        #: Outbox entries whose events were told: they are removed with a reserve.
        self.confirmed: list[tuple[int, str]] = []

    # Reserving.

    def reserve(self, client_id: str) -> None:
        """Ask for a new run."""
        self._ask(self._runs.new(client_id))

    def deliver_again(self, run: Run) -> None:
        """Deliver a run once more that was charged; only where Redis has lost that may it start again."""
        run.hold = self._another(run, self._runs.amount())
        self._ask(run)

    def take_over(self, run: Run) -> None:
        """Give a run that holds to another attempt, which may need more."""
        hold = self._another(run, self._calls.chance.choice((0, run.held, run.held + self._runs.amount())))
        self._ask_again(run, hold)

    def _another(self, run: Run, credits_: int) -> Hold:
        attempt = run.hold.attempt + 1
        return self._runs.hold(run.run_id, run.client_id, run.sku, credits_, attempt=attempt)

    def _reserved(self, run: Run, hold: Hold) -> ReserveReply | None:
        riders, self.confirmed = self.confirmed, []
        stopped = self._stopped(run.client_id)
        reply = self._call(run, "reserve", lambda: self._calls.buckets.reserve(hold, forget=riders))
        if reply is None:
            self.confirmed += riders
            return None
        self.confirmed += reply.left
        if reply.outcome is ReserveOutcome.HELD and stopped:
            self._breach(run, "L1: a client that may reserve nothing was admitted")
        return reply

    def _ask(self, run: Run) -> None:
        reply = self._reserved(run, run.hold)
        if reply is None:
            run.unsure = True
            self._runs.become(run, State.ASKED)
        elif reply.outcome is ReserveOutcome.HELD and run.succeeded and run.life == self.life:
            self._breach(run, "L4: it was charged, and was admitted again")
        elif reply.outcome is ReserveOutcome.HELD or (
            reply.outcome is ReserveOutcome.TAKEN_OVER and (run.unsure or self._calls.cut)
        ):
            run.held = run.hold.credits
            self._runs.become(run, State.HELD)
            self._twice(run, "reserve", lambda: self._calls.buckets.reserve(run.hold), ReserveOutcome.TAKEN_OVER)
        elif reply.outcome in _NO and run.unsure:
            self._runs.become(run, State.LEFT)  # its hold may be there, uncovered
        elif reply.outcome in _NO or (reply.outcome is ReserveOutcome.SETTLED and run.succeeded):
            self._runs.over(run)
        else:
            self._breach(run, f"L4: reserve answered {reply}")

    def _ask_again(self, run: Run, hold: Hold) -> None:
        reply = self._reserved(run, hold)
        if reply is None:
            run.hold = hold
            self._runs.become(run, State.AGAIN)
        elif reply.outcome is ReserveOutcome.TAKEN_OVER:
            run.hold, run.held = hold, max(run.held, hold.credits)
            self._runs.become(run, State.HELD)
        elif reply.outcome in _NO:
            # An attempt whose first call may have got more gives up; else the earlier one's hold stands.
            self._runs.become(run, State.LEFT if run.state is State.AGAIN else State.HELD)
        elif reply.outcome is ReserveOutcome.SETTLED and run.succeeded:
            self._runs.over(run)
        else:
            self._breach(run, f"L5: it holds, and reserve answered {reply}")

    # Running.

    def renew(self, run: Run) -> None:
        """Renew the hold of a run."""
        items = [(run.client_id, run.run_id, None)]
        reply = self._call(run, "renew", lambda: self._calls.buckets.renew(items)[0])
        if reply is RenewOutcome.SETTLED and run.succeeded:
            self._runs.over(run)
        elif reply not in (RenewOutcome.RENEWED, None):
            self._breach(run, f"L5: it holds, and renew answered {reply}")

    def stage(self, run: Run) -> None:
        """Keep a draft with the hold of a run."""

        def act() -> RenewOutcome:
            staged = self._calls.buckets.stage(run.client_id, run.run_id, run.hold.token, run.hold.lines)
            # It says the same of a shard that recovers.
            return RenewOutcome.RENEWED if staged else RenewOutcome.RECOVERING

        self._call(run, "stage", act)

    # Calling.

    def _call(self, run: Run, verb: str, act: Callable[[], T]) -> T | None:
        return self._calls.call(shard(run.client_id), verb, act)

    def _twice(self, run: Run, verb: str, act: Callable[[], object], *expected: Enum) -> None:
        """Send a call once more, by chance, which was answered: nothing changes."""
        if not self._calls.once_in(AGAIN_EVERY):
            return
        reply = self._call(run, f"{verb} again:", act)
        self._calls.counts["duplicated commands"] += 1
        if reply is not None and getattr(reply, "outcome", reply) not in expected:
            self._breach(run, f"L4: {verb} came twice, and answered {reply}")

    def _breach(self, run: Run, what: str) -> NoReturn:
        message = f"{what}: {run}"
        raise Breach(message)
