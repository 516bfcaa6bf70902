"""A process' runs: what it was told of each, and whether it holds credits; so it must be in Redis and in the log."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from uuid import UUID

from billing.core.ids import run_id
from billing.credits.values import Hold, Settlement
from billing.events.usage_event import Draft, EventHead, UsageLine, encode_draft, encode_fragment, encode_head
from tests.contract.faulty.values import SKUS, AtRest, MovedClock

#: How many runs that have ended are met again: by a late settle, or another delivery.
_RECENT: Final = 60


class State(Enum):
    """What a process knows of a run."""

    #: A reserve was sent, and not answered.
    ASKED = "asked"
    HELD = "held"
    #: Another attempt's reserve was sent, and not answered: it holds what it held, or more.
    AGAIN = "again"
    #: It has succeeded, and its settle was not answered.
    OWED = "owed"
    #: It ended without success and may still hold: its lease will end.
    LEFT = "left"
    #: It was charged by a direct event and may still hold: a reaper will look at it.
    REAPED = "reaped"
    CHARGED = "charged"
    GONE = "gone"


#: States that wait for an answer.
WAITING: Final = frozenset({State.ASKED, State.AGAIN, State.OWED, State.LEFT, State.REAPED})


@dataclass(kw_only=True, slots=True, eq=False)
class Run:
    """One run. `held` is what it holds while it does; `settlements` is what each of its settlements charges."""

    run_id: UUID
    client_id: str
    sku: str
    hold: Hold
    state: State = State.ASKED
    held: int = 0
    #: A call of the present reserve was not answered, so that it may hold.
    unsure: bool = False
    #: It had a hold once.
    had: bool = False
    #: It holds until its settle is answered.
    covered: bool = False
    settlements: dict[str, int] = field(default_factory=dict)
    owed: Settlement | None = None
    used: tuple[UsageLine, ...] = ()
    #: After how many losses of Redis it was charged; -1: Redis never took it.
    life: int = -1
    #: The log has it, or will.
    succeeded: bool = False


class Runs:
    """All runs of a process that may still matter."""

    def __init__(self, name: str, chance: random.Random, clock: MovedClock) -> None:
        self._name, self._chance, self._clock = name, chance, clock
        self._number = 0
        self.all: dict[UUID, Run] = {}
        self.held: list[Run] = []
        self.waiting: dict[UUID, Run] = {}
        self.ended: deque[Run] = deque(maxlen=_RECENT)
        #: By client, what settled runs charged within their holds.
        self._settled: Counter[str] = Counter()

    def new(self, client_id: str) -> Run:
        """Return a run that has not been asked for; its id has the time of this machine's clock."""
        self._number += 1
        minted = run_id(client_id, f"{self._name}-{self._number}", nesting=0, nonce="", at_milliseconds=self._clock.ms)
        sku = self._chance.choice(SKUS)
        run = Run(run_id=minted, client_id=client_id, sku=sku, hold=self.hold(minted, client_id, sku, self.amount()))
        self.all[minted] = run
        return run

    def amount(self) -> int:
        """Return some credits."""
        return self._chance.choice((0, 1, *[self._chance.randint(1, 60) for _ in range(8)], 300))

    def hold(self, run: UUID, client_id: str, sku: str, credits_: int, *, attempt: int = 1) -> Hold:
        """Return what an attempt asks for."""
        line = UsageLine(sku=sku, quantity=1, credits=credits_)
        return Hold(
            run_id=run,
            client_id=client_id,
            sku=sku,
            credits=credits_,
            token=f"{self._chance.getrandbits(64):x}",
            price_version=1,
            attempt=attempt,
            head=encode_head(self.head(run, client_id, attempt)),
            lines=encode_draft(Draft(priced_at=self._clock.ms, lines=(line,))),
        )

    def head(self, run: UUID, client_id: str, attempt: int) -> EventHead:
        """Return what a worker knows of a usage event."""
        return EventHead(
            run_id=run,
            client_id=client_id,
            correlation_id=str(run),
            root_id=str(run),
            task="random",
            attempt=attempt,
            submitted_at=self._clock.ms,
            price_version=1,
        )

    def use(self, run: Run) -> None:
        """Have a run use something, and settle that: less than it holds, as much, or more; of one SKU or of two."""
        run.used = tuple(self._lines(run))
        run.owed = self._settlement(run)

    def _lines(self, run: Run) -> list[UsageLine]:
        match self._chance.choice(("below", "at", "at", "above")):
            case "below":
                total = self._chance.randint(0, run.held)
            case "at":
                total = run.held
            case _:
                total = run.held + self._chance.choice((1, self._chance.randint(1, 20), self.amount()))
        if self._chance.randrange(5):
            return [UsageLine(sku=run.sku, quantity=1, credits=total)]
        first = self._chance.randint(0, total)
        other = self._chance.choice([sku for sku in SKUS if sku != run.sku])
        amounts = ((run.sku, first), (other, total - first))
        return [UsageLine(sku=sku, quantity=1, credits=credits_) for sku, credits_ in amounts]

    def _settlement(self, run: Run) -> Settlement:
        settlement = Settlement(
            run_id=run.run_id,
            client_id=run.client_id,
            sku=run.sku,
            settlement_id=f"{self._chance.getrandbits(128):x}",
            head=encode_head(self.head(run.run_id, run.client_id, run.hold.attempt)),
            fragments=tuple(encode_fragment(line) for line in run.used),
            amounts=tuple(line.credits for line in run.used),
        )
        run.settlements[settlement.settlement_id] = sum(settlement.amounts)
        return settlement

    def become(self, run: Run, state: State) -> None:
        """Note what is known of a run now."""
        before, run.state = run.state, state
        if before is State.HELD and state is not State.HELD:
            self.held.remove(run)
        if state is State.HELD and before is not State.HELD:
            self.held.append(run)
            run.had, run.unsure = True, False
        if state in WAITING:
            self.waiting[run.run_id] = run
        else:
            self.waiting.pop(run.run_id, None)
        if state in (State.CHARGED, State.GONE) and before is not state:
            run.covered = run.unsure = False
            self.ended.append(run)

    def succeed(self, run: Run, amount: int, *, directly: bool = False) -> None:
        """Note that the log has, or will have, a run; the first time counts. No bucket has admitted a direct charge."""
        if not run.succeeded and run.covered and not directly:
            self._settled[run.client_id] += min(amount, run.held)
        run.succeeded = True

    def over(self, run: Run) -> None:
        """Note that a run holds nothing any more."""
        self.become(run, State.CHARGED if run.succeeded else State.GONE)

    def report(self) -> AtRest:
        """Tell what must be in Redis and in the log."""
        admitted = self._settled.copy()
        for run in self.held:
            admitted[run.client_id] += run.held
        return AtRest(
            holds={run.run_id: (run.client_id, run.held) for run in self.held},
            admitted=dict(admitted),
            succeeded={run.run_id: frozenset(run.settlements.values()) for run in self.all.values() if run.succeeded},
        )

    def forget(self, hot: str) -> None:
        """Forget what has ended, and every client but one."""
        self.held = [run for run in self.held if run.client_id == hot]
        self.all = {run.run_id: run for run in self.held}
        self.waiting.clear()
        self.ended.clear()
        self._settled = Counter({hot: self._settled[hot]})
