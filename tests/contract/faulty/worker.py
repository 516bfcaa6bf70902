"""A process that works on buckets at random, by one seed, and asserts, rests and reports when it is told to.

What it asks comes from its seed and from what it was answered; how far it is when the server dies is not of the seed,
so that the same seed makes the same beginning, not the same end.
"""

from __future__ import annotations

import contextlib
import random
import traceback
from collections.abc import MutableSequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from tests.contract.faulty.calls import TRIES_MAX, Calls
from tests.contract.faulty.changes import Changes
from tests.contract.faulty.run_verbs import RunVerbs
from tests.contract.faulty.runs import Run, Runs, State
from tests.contract.faulty.values import (
    CLOCK_MS,
    SHARDS,
    Assert,
    Batch,
    Breach,
    Broken,
    Describe,
    Described,
    End,
    Forget,
    Go,
    MovedClock,
    Over,
    Recovered,
    Rest,
)
from tests.contract.servers import Server

#: How often each kind comes.
_WEIGHTS: Final = {
    "reserve": 30,
    "settle": 20,
    "release": 8,
    "take_over": 6,
    "renew": 8,
    "stage": 3,
    "die": 3,
    "finish_late": 2,
    "deliver_again": 3,
    "charge_directly": 1,
    "change": 7,
    "go_on": 9,
}
#: Of so many operations one is on the hot client; of so many changes, since its grants stay for ever.
_HOT_EVERY: Final = 5
_HOT_CHANGES_EVERY: Final = 30
#: After so many operations a clock is set, events are told, and those that were told are removed from the outbox.
_CLOCK_EVERY: Final = 400
_TELL_EVERY: Final = 25
_FORGET_AT: Final = 40
#: How many holds a process has before it ends one.
_HELD_MIN: Final = 25
#: How long a process waits for news, that only finds a server which is down or recovering.
_PAUSE_SECONDS: Final = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Which process this is, and where its server is."""

    number: int
    seed: int
    port: int
    cut_every: int


class Worker:
    """One process."""

    def __init__(
        self, place: Place, pipe: Connection, trusted: MutableSequence[int], done: MutableSequence[int]
    ) -> None:
        self._number, self._pipe, self._done = place.number, pipe, done
        self._chance = random.Random(f"{place.seed} {place.number}")
        self._clock = MovedClock()
        self._calls = Calls(place.port, self._chance, trusted, place.cut_every)
        self._runs = Runs(f"{place.seed:x}-{place.number}", self._chance, self._clock)
        self._changes = Changes(self._calls, place.number, self._chance, self._clock)
        server = Server("", "", port=place.port, shards=SHARDS)
        self._verbs = RunVerbs(self._calls, self._runs, self._clock, self._changes.is_stopped, server)
        self._go = Go(clients=(), owned=(), hot="", leads=False, operations=0)
        self._until = 0
        self._steps = 0

    def run(self) -> None:
        """Work until told to end."""
        try:
            while True:
                resting = self._calls.answered >= self._until
                if (resting or self._pipe.poll()) and not self._hear():
                    break
                if self._calls.answered < self._until:
                    self._step()
        except (EOFError, BrokenPipeError):
            return  # nobody leads any more
        except Breach as breach:
            self._break(str(breach))
        except Exception:  # noqa: BLE001 - whatever it is, it is told
            self._break(traceback.format_exc())
        finally:
            self._calls.close()

    def _break(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(Broken(text=f"process {self._number}, operation {self._calls.answered}: {text}"))

    def _hear(self) -> bool:
        """Do what is told; return whether to go on."""
        match self._pipe.recv():
            case Go() as go:
                self._go = go
                self._changes.own({*go.owned, go.hot} if go.leads else {*go.owned})
                self._until = self._calls.answered + self._go.operations
            case Assert():
                asserted = self._verbs.assert_holds()
                self._tell()
                self._pipe.send(asserted)
            case Recovered() as told:
                self._calls.counts["answered ends of runs that were lost"] += self._verbs.recovered(told)
            case Rest():
                self._rest()
                self._until = self._calls.answered
                self._pipe.send(self._runs.report())
            case Describe(run_id=run_id):
                self._pipe.send(Described(text=str(self._runs.all.get(run_id, ""))))
            case Forget(hot=hot):
                self._runs.forget(hot)
                self._changes.forget(hot)
            case End():
                counts = self._calls.counts + self._calls.door.cuts
                self._pipe.send(Over(counts=counts))
                return False
        return True

    def _step(self) -> None:
        """Do one thing."""
        before = self._calls.answered
        self._steps += 1
        if self._steps % _CLOCK_EVERY == 0:
            self._clock.offset_ms = self._chance.randint(-CLOCK_MS, CLOCK_MS)
            self._calls.counts["clock jumps"] += 1
        verb = self._chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
        getattr(self, f"_{verb}")()
        self._done[self._number] += self._calls.answered - before
        if self._steps % _TELL_EVERY == 0:
            self._tell()
        if self._calls.answered == before:
            self._pipe.poll(_PAUSE_SECONDS)

    def _tell(self) -> None:
        """Tell the ledger and the log; what they have may be removed from the outbox."""
        if self._changes.told or self._verbs.events:
            self._pipe.send(Batch(rows=self._changes.told, events=self._verbs.events))
            self._changes.told, self._verbs.events = [], []
        self._verbs.confirmed += self._verbs.unconfirmed
        self._verbs.unconfirmed = []
        if len(self._verbs.confirmed) > _FORGET_AT:
            self._verbs.confirmed = self._calls.buckets.forget_reached(self._verbs.confirmed)

    def _rest(self) -> None:
        """Ask again until everything is answered."""
        for _ in range(TRIES_MAX):
            for run in list(self._runs.waiting.values()):
                self._verbs.go_on(run)
            answered = [self._changes.apply(client_id) for client_id in self._changes.clients]
            if not self._runs.waiting and all(answered):
                self._tell()
                return
        message = f"L9: not at rest: {[*self._runs.waiting.values()][:3]}, {self._changes.clients}"
        raise Breach(message)

    # What there is to do.

    def _client(self) -> str:
        return self._go.hot if self._calls.once_in(_HOT_EVERY) else self._chance.choice(self._go.clients)

    def _one_held(self) -> Run | None:
        return self._chance.choice(self._runs.held) if self._runs.held else None

    def _one_to_end(self) -> Run | None:
        """Return a run that holds, if there are enough of them to lose."""
        return self._one_held() if len(self._runs.held) >= _HELD_MIN else None

    def _one_ended(self, state: State) -> Run | None:
        found = self._chance.choice(self._runs.ended) if self._runs.ended else None
        return found if found is not None and found.state is state and found.run_id in self._runs.all else None

    def _reserve(self) -> None:
        self._verbs.reserve(self._client())

    def _settle(self) -> None:
        if run := self._one_to_end():
            self._verbs.settle(run)
        else:
            self._reserve()

    def _release(self) -> None:
        if run := self._one_to_end():
            self._verbs.release(run)

    def _take_over(self) -> None:
        if run := self._one_held():
            self._verbs.take_over(run)

    def _renew(self) -> None:
        if run := self._one_held():
            self._verbs.renew(run)

    def _stage(self) -> None:
        if run := self._one_held():
            self._verbs.stage(run)

    def _die(self) -> None:
        if run := self._one_to_end():
            self._verbs.die(run)

    def _finish_late(self) -> None:
        if (run := self._one_ended(State.GONE)) and run.had:
            self._verbs.settle(run)

    def _deliver_again(self) -> None:
        if run := self._one_ended(State.CHARGED):
            self._verbs.deliver_again(run)

    def _charge_directly(self) -> None:
        owed = [run for run in self._runs.waiting.values() if run.state is State.OWED]
        if run := (self._chance.choice(owed) if owed else self._one_held()):
            self._verbs.charge_directly(run)

    def _change(self) -> None:
        client_id = self._go.hot if self._calls.once_in(_HOT_CHANGES_EVERY) else self._chance.choice(self._go.owned)
        self._changes.write(client_id)
        self._tell()
        self._changes.apply(client_id)

    def _go_on(self) -> None:
        if self._runs.waiting:
            self._verbs.go_on(next(iter(self._runs.waiting.values())))
        elif clients := self._changes.clients:
            self._changes.apply(self._chance.choice(clients))


def work(place: Place, pipe: Connection, trusted: MutableSequence[int], done: MutableSequence[int]) -> None:
    """Be a process."""
    Worker(place, pipe, trusted, done).run()
