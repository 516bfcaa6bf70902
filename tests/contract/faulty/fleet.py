"""The processes, and what they tell: rows of the ledger, events for the log, answers to what they are asked.

A row is told before it is applied, so that whatever an event names is in the ledger before the event.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from multiprocessing.connection import Connection, wait
from typing import Final, TypeVar

from tests.contract.faulty.ledger import Ledger
from tests.contract.faulty.values import (
    SHARDS,
    Assert,
    Batch,
    Breach,
    Broken,
    Describe,
    End,
    Forget,
    Go,
    MovedClock,
    Over,
    Recovered,
    Rest,
)
from tests.contract.faulty.worker import Place, work
from tests.waiting import LIMIT_SECONDS

T = TypeVar("T")
Message = Assert | Describe | End | Forget | Go | Recovered | Rest

#: What a process may take to come to rest, which is far more than it needs.
_ANSWER_SECONDS: Final = 5 * LIMIT_SECONDS


class Fleet:
    """Processes that work on one server."""

    def __init__(self, seed: int, processes: int, port: int, ledger: Ledger, cut_every: int) -> None:
        self._ledger, self._clock = ledger, MovedClock()
        context = multiprocessing.get_context("spawn")
        #: For each shard, whether it is trusted; for each process, what it has done.
        self.trusted = context.RawArray("q", SHARDS)
        self.done = context.RawArray("q", processes)
        pairs = [context.Pipe() for _ in range(processes)]
        self.pipes: list[Connection] = [ours for ours, _ in pairs]
        self._processes = [
            context.Process(
                target=work,
                args=(Place(number=number, seed=seed, port=port, cut_every=cut_every), theirs, self.trusted, self.done),
                daemon=True,
            )
            for number, (_, theirs) in enumerate(pairs)
        ]
        for process, (_, theirs) in zip(self._processes, pairs, strict=True):
            process.start()
            theirs.close()
        self._answers: dict[Connection, list[object]] = {pipe: [] for pipe in self.pipes}

    def tell(self, message: Message) -> None:
        """Tell all processes something."""
        for pipe in self.pipes:
            try:
                pipe.send(message)
            except BrokenPipeError:  # it has ended, and has said why
                self.hear(_ANSWER_SECONDS)
                raise

    def ask(self, message: Message, kind: type[T]) -> list[T]:
        """Tell all processes something, and return what each answers; what else they tell is taken in."""
        self.tell(message)
        answers: dict[Connection, T] = {}
        while len(answers) < len(self.pipes):
            if not self.hear(_ANSWER_SECONDS):
                message_ = f"L9: no answer to {message} within {_ANSWER_SECONDS:g} s"
                raise Breach(message_)
            for pipe in self.pipes:
                found = [answer for answer in self._answers[pipe] if isinstance(answer, kind)]
                self._answers[pipe] = []
                if found:
                    answers[pipe] = found[0]
        return [answers[pipe] for pipe in self.pipes]

    def hear(self, seconds: float = 0.0) -> bool:
        """Take in what was told, rows before events; wait so long for the first of it. Raises `Breach` for one."""
        batches: list[Batch] = []
        heard = False
        while ready := wait(self.pipes, 0.0 if heard else seconds):
            heard = True
            for pipe in ready:
                assert isinstance(pipe, Connection)
                told = _received(pipe)
                if isinstance(told, Batch):
                    batches.append(told)
                else:
                    self._answers[pipe].append(told)
        for batch in batches:
            self._ledger.enter(batch.rows)
        if events := [event for batch in batches for event in batch.events]:
            self.publish(events)
        return heard

    def publish(self, events: list[bytes]) -> None:
        """Write events to the log."""
        self._ledger.write(events, self._clock.true_ms)

    def end(self) -> Counter[str]:
        """End all processes; return what they counted."""
        counts: Counter[str] = sum((told.counts for told in self.ask(End(), Over)), Counter())
        self.stop()
        return counts

    def stop(self) -> None:
        """End all processes at once."""
        for process, pipe in zip(self._processes, self.pipes, strict=True):
            pipe.close()
            process.join(1.0) if process.exitcode is None else None
            process.kill()
            process.join()
            process.close()
        self._processes, self.pipes = [], []


def _received(pipe: Connection) -> object:
    try:
        told = pipe.recv()
    except EOFError:
        raise Breach("a process has ended") from None
    if isinstance(told, Broken):
        raise Breach(told.text)
    return told
