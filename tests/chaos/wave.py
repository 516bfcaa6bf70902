"""One wave of tasks over a loaded fleet, with a loss in the middle of it, and what must be true of it afterwards."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping

from celery import states

from tests.chaos.books import Work, ok
from tests.chaos.loaded import LoadedFleet
from tests.chaos.probing import Try, closed_until
from tests.fleet import admissions

#: Of the first half of the tasks, what has ended when the loss comes.
_ENDED_BEFORE = 1 / 3
#: Tasks of a client that is short, sent after the loss: it can pay for one of them.
_TOO_MANY = 3


@dataclasses.dataclass(kw_only=True)
class Wave:
    """What was sent when; `ids` by what they are."""

    loaded: LoadedFleet
    number: int
    tasks: list[Work]
    ids: list[str] = dataclasses.field(default_factory=list)
    short: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    lost_ns: int = 0
    epochs: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def gate(self) -> str:
        """The gate of the blocks that leave while Redis is lost."""
        return f"at-{self.number}"

    def lose(self, loss: Callable[[], None]) -> None:
        """Send the first part, lose something while it runs, send the rest, and let some blocks go."""
        loaded = self.loaded
        paid = loaded.send([ok(name) for name in loaded.short])
        loaded.wait_ended(paid)
        assert loaded.states(paid) == {states.SUCCESS: len(paid)}
        loaded.books.succeeded.update(paid)
        half = len(self.tasks) // 2
        self.ids = loaded.send(self.tasks[:half])
        loaded.wait_ended(self.ids, share=_ENDED_BEFORE)
        self.epochs = loaded.epochs()

        with loaded.prober.held_off():
            loss()
            self.lost_ns = time.monotonic_ns()

        loaded.open_gate(self.gate)
        after = loaded.send([ok(name) for _ in range(_TOO_MANY) for name in loaded.short])
        for number, name in enumerate(loaded.short):
            self.short[name] = after[number :: len(loaded.short)]
        self.ids += loaded.send(self.tasks[half:])

    def end(self) -> None:
        """Wait for the end of all that was sent, and write it into the books."""
        loaded, books = self.loaded, self.loaded.books
        after = [task_id for ids in self.short.values() for task_id in ids]
        loaded.wait_ended([*self.ids, *after])
        found = loaded.states_of([*self.ids, *after])
        for task_id, work in zip(self.ids, self.tasks, strict=True):
            assert found[task_id] == (states.SUCCESS if work.used else "ValueError"), (work, found[task_id])
        for name, ids in self.short.items():
            # L1: what the client had left paid for one of three, to the unit.
            answers = collections.Counter(found[task_id] for task_id in ids)
            assert answers == {states.SUCCESS: 1, "InsufficientCredits": _TOO_MANY - 1}, (name, answers)
        books.succeeded |= {task_id for task_id, state in found.items() if state == states.SUCCESS}
        leaving = [order for order in loaded.orders if order.gate == self.gate]
        loaded.wait(lambda: len(loaded.left(self.gate)) == len(leaving), "the blocks that leave have left")
        for order in leaving:
            books.close([order.key], succeeded=order.succeeds)

    def admitted_while_closed(self, only: str | None = None) -> list[object]:
        """Return what was admitted after the loss on a shard that was not open yet (L6); must be nothing.

        `only`: the one client that lost something, where the others may go on.
        """
        loaded = self.loaded
        tries = [found for found in loaded.prober.tries if found.began_ns >= self.lost_ns]
        tries = [found for found in tries if only in (None, found.client_id)]
        until = closed_until(tries, self.lost_ns)
        assert until, "nobody was shut out after the loss"
        early: list[object] = [found for found in tries if found.admitted and not self._is_later(found)]
        closed = {loaded.shard_of(name): moment for name, moment in until.items()}
        for answer in admissions.answers(loaded.fleet.directory):
            if not answer.admitted or answer.began_ns < self.lost_ns or only not in (None, answer.client_id):
                continue
            if answer.ended_ns <= closed.get(loaded.shard_of(answer.client_id), 0):
                early.append(answer)
        return early

    def put_off(self) -> collections.Counter[str]:
        """Return the answers that workers got since the loss."""
        found = admissions.answers(self.loaded.fleet.directory)
        return collections.Counter(answer.outcome for answer in found if answer.began_ns >= self.lost_ns)

    def _is_later(self, found: Try) -> bool:
        """Whether an admission is of a later epoch than the client was in before the loss."""
        return found.epoch is None or found.epoch > self.epochs[found.client_id]
