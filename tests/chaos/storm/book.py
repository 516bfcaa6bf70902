"""The storm's own book: what was submitted and granted, what the answers were, what must have been charged. Pure.

It knows nothing of billing's tables: prices stand in the test, and a success is what a caller or a witness saw.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from celery import states

from tests.chaos.books import Charge, Work

REFUSED: Final = "InsufficientCredits"
#: The task that fails by itself, and how.
FAILS: Final = ("fails", "ValueError")
#: What faults end a task with: Celery stores a result with Redis' client, and ends the task with what that raises.
CAUSED: Final = frozenset({"BusyLoadingError", "ConnectionError", "TimeoutError"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of the usage history, as far as the book judges it."""

    run_id: str
    line: int
    settlement_id: str
    charge: Charge
    late: bool
    #: When the work was charged, on the clock of the machine.
    occurred_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """What was examined of a law, and what broke it, by name."""

    law: str
    says: str
    examined: int
    violations: Sequence[str] = ()


class Book:
    """Clients, grants, submissions, answers."""

    def __init__(self, rich: Sequence[str], short: Sequence[str]) -> None:
        self.rich, self.short = rich, short
        self.work: dict[str, Work] = {}
        self.sure: set[str] = set()
        self.doubts: collections.Counter[str] = collections.Counter()
        self.granted: collections.Counter[str] = collections.Counter()
        self.grants_begun: dict[str, tuple[str, int]] = {}
        #: Every grant by its key: when it was begun first, to whom, how much. No bucket had it before.
        self.granting_since: dict[str, tuple[int, str, int]] = {}
        self.answers: Mapping[str, str] = {}
        self.witnessed: set[str] = set()
        #: When each delivery of a task began, before anything was held for it, by the workers' own witness.
        self.begun: Mapping[str, Sequence[int]] = {}
        #: From when until when holds could be lost, or not be settled, since Redis was not there or not trusted.
        self.losses: Sequence[tuple[int, int]] = ()
        #: Whose result could not be stored: Celery has ended them, and nobody may have heard.
        self.unanswered: set[str] = set()
        self._lock = threading.Lock()

    def submitting(self, task_id: str, work: Work) -> None:
        """Note what is about to be sent."""
        with self._lock:
            self.work[task_id] = work

    def submitted(self, task_id: str) -> None:
        """Note that the broker has it."""
        with self._lock:
            self.sure.add(task_id)

    def in_doubt(self, task_id: str, error: Exception) -> None:
        """Note that nobody knows whether the broker has it."""
        del task_id
        with self._lock:
            self.doubts[type(error).__name__] += 1

    def granting(self, client_id: str, credits_: int, key: str, at_ms: int) -> None:
        """Note a grant that is begun, for the first time or again."""
        with self._lock:
            self.grants_begun[key] = (client_id, credits_)
            self.granting_since.setdefault(key, (at_ms, client_id, credits_))

    def granted_before(self, client_ids: Iterable[str], credits_: int) -> None:
        """Note a grant that each of some clients had before anything was submitted."""
        for client_id in client_ids:
            self.granted[client_id] += credits_
            self.granting_since[f"before {client_id}"] = (0, client_id, credits_)

    def was_granted(self, key: str) -> None:
        """Note that a grant is written, for ever."""
        with self._lock:
            client_id, credits_ = self.grants_begun.pop(key)
            self.granted[client_id] += credits_

    @property
    def clients(self) -> list[str]:
        """Everybody."""
        return [*self.rich, *self.short]

    @property
    def succeeded(self) -> set[str]:
        """Return the tasks whose answer is success."""
        return {task_id for task_id, state in self.answers.items() if state == states.SUCCESS}

    @property
    def refused(self) -> set[str]:
        """Return the tasks whose answer is a refusal for want of credits."""
        return {task_id for task_id, state in self.answers.items() if state == REFUSED}

    def never_ended(self) -> set[str]:
        """Return what the broker had confirmed and what has no end, though the result backend took one."""
        return {task_id for task_id in self.sure - self.unanswered if self.answers[task_id] in states.UNREADY_STATES}

    def overwritten(self) -> set[str]:
        """Return tasks that a witness saw succeed, and whose last answer, of a later delivery, is another one."""
        return (self.witnessed & self.work.keys()) - self.succeeded

    def charge(self, rows: Iterable[Row]) -> Law:
        """L3: each success that a caller or a witness saw has its lines, once, at its price; nothing else has any.

        The witness writes after billing's own hook: the charge is in Redis, with the broker, or kept by the worker.
        """
        found: dict[str, list[Row]] = collections.defaultdict(list)
        for row in rows:
            found[row.charge.correlation_id].append(row)
        lost = (self.succeeded | (self.witnessed & self.work.keys())) - found.keys()
        broken = [f"{task_id}: succeeded, and is not charged (lost)" for task_id in sorted(lost)]
        for task_id, lines in found.items():
            if task_id not in self.work:
                broken.append(f"{task_id}: nobody submitted it")
                continue
            if task_id not in self.succeeded and task_id not in self.witnessed:
                broken.append(f"{task_id}: charged, and its answer is {self.answers[task_id]}")
            wanted = sorted(self.work[task_id].charges(task_id), key=_order)
            charged = sorted((row.charge for row in lines), key=_order)
            if charged != wanted:
                word = "twice or otherwise" if len(charged) > len(wanted) else "otherwise"
                broken.append(f"{task_id}: charged {word}: {charged}, must be {wanted}")
        examined = len(self.work)
        return Law(law="L3 one charge", says="rows = successes of the book", examined=examined, violations=broken)

    def states(self, rows: Iterable[Row]) -> Law:
        """L4: a run has one settlement, and its task one run."""
        settlements: dict[str, set[str]] = collections.defaultdict(set)
        runs: dict[str, set[str]] = collections.defaultdict(set)
        for row in rows:
            settlements[row.run_id].add(row.settlement_id)
            runs[row.charge.correlation_id].add(row.run_id)
        broken = [f"run {run}: {len(ids)} settlements" for run, ids in settlements.items() if len(ids) > 1]
        broken += [f"task {task_id}: {len(ids)} runs" for task_id, ids in runs.items() if len(ids) > 1]
        return Law(law="L4 states", says="a run settles once", examined=len(settlements), violations=broken)

    def failures(self) -> Law:
        """L3: a task that could succeed fails by a fault alone, and by what a fault can cause."""
        ended = [answer for answer in self.answers.items() if answer[1] not in _NO_FAILURE]
        broken = [
            f"{task_id}: {self.work[task_id].task} ended by {error}"
            for task_id, error in sorted(ended)
            if error not in CAUSED
            and (self.work[task_id].task, error) != FAILS
            # Celery cancels what it runs when its connection is lost, and says so over what another delivery failed by.
            and not (error == states.REVOKED and len(self.begun.get(task_id, ())) > 1)
        ]
        says = "fails by itself, or by a fault"
        return Law(law="L3 failures", says=says, examined=len(ended), violations=broken)

    def isolation(self) -> Law:
        """L10: nobody who can pay is refused."""
        rich = set(self.rich)
        broken = [f"{task_id}: refused" for task_id in self.refused if self.work[task_id].client_id in rich]
        examined = sum(work.client_id in rich for work in self.work.values())
        return Law(law="L10 isolation", says="who can pay is never refused", examined=examined, violations=broken)

    def lost_work(self) -> Law:
        """Every task that the broker confirmed has an end."""
        broken = [f"{task_id}: {self.work[task_id].task} never ended" for task_id in self.never_ended()]
        return Law(law="L9 bounds", says="what was confirmed ends", examined=len(self.sure), violations=broken)


_NO_FAILURE: Final = states.UNREADY_STATES | {states.SUCCESS, REFUSED}


def _order(charge: Charge) -> tuple[str, int]:
    return charge.sku, charge.credits
