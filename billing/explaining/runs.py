"""Tells the runs of one task id apart: two submissions, a `replace()`, two clients. Pure."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from billing.core.ids import LEGACY_MILLISECONDS, milliseconds_of
from billing.credits.values import SettledRun
from billing.events.usage_event import UsageEvent
from billing.explaining.evidence import Evidence, Held, Line, Parked
from billing.task.trail import Note

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What the sources have of one run. `run_id` is None for deliveries of which nobody could tell which run it was."""

    run_id: uuid.UUID | None
    lines: tuple[Line, ...] = ()
    corrections: tuple[Line, ...] = ()
    held: Held | None = None
    settled: SettledRun | None = None
    waiting: UsageEvent | None = None
    parked: Parked | None = None
    notes: tuple[Note, ...] = ()

    @property
    def client_id(self) -> str:
        """Who pays, or nothing where nobody says so."""
        clients = (
            *(line.client_id for line in self.lines),
            *([self.held.hold.client_id] if self.held else []),
            *([self.settled.client_id] if self.settled else []),
            *([self.parked.client_id] if self.parked else []),
            *(note.client_id for note in self.notes),
        )
        return next((client_id for client_id in clients if client_id), "")

    @property
    def submitted_at(self) -> datetime | None:
        """When its root was published, which the run id says; None for senders without the library."""
        if self.run_id is None or milliseconds_of(self.run_id) == LEGACY_MILLISECONDS:
            return None
        return datetime.fromtimestamp(milliseconds_of(self.run_id) / 1_000, UTC)

    @property
    def task(self) -> str:
        """The task's name, or nothing."""
        names = (
            *(line.task for line in self.lines),
            *([self.held.head.task] if self.held and self.held.head else []),
            *([self.waiting.task] if self.waiting else []),
            *([self.parked.task] if self.parked else []),
            *(note.task for note in self.notes),
        )
        return next((name for name in names if name), "")


def runs_of(found: Evidence) -> list[Run]:
    """Return the runs of a task, in the order in which they were submitted."""
    books, buckets = found.books, found.buckets
    lines = () if books is None else books.lines
    own = _by_run((line for line in lines if line.corrects is None), lambda line: line.run_id)
    corrections = _by_run((line for line in lines if line.corrects is not None), lambda line: line.corrects)
    parked = _by_run(() if books is None else books.parked, lambda row: row.run_id)
    held = _by_run(() if buckets is None else buckets.held, lambda one: one.hold.run_id)
    settled = _by_run(() if buckets is None else buckets.settled, lambda one: one.run_id)
    waiting = _by_run(() if buckets is None else buckets.waiting, lambda event: event.run_id)
    notes = _by_run(() if buckets is None else buckets.notes, lambda note: note.run_id)
    ids = {*own, *corrections, *parked, *held, *settled, *waiting, *notes}
    return [
        Run(
            run_id=run_id,
            lines=tuple(own.get(run_id, ())),
            corrections=tuple(corrections.get(run_id, ())),
            held=_last(held.get(run_id)),
            settled=_last(settled.get(run_id)),
            waiting=_last(waiting.get(run_id)),
            parked=_last(parked.get(run_id)),
            notes=tuple(notes.get(run_id, ())),
        )
        for run_id in sorted(ids, key=lambda run_id: (run_id is None, run_id or uuid.UUID(int=0)))
    ]


def _by_run(rows: Iterable[T], run_of: Callable[[T], uuid.UUID | None]) -> dict[uuid.UUID | None, list[T]]:
    found: dict[uuid.UUID | None, list[T]] = {}
    for row in rows:
        found.setdefault(run_of(row), []).append(row)
    return found


def _last(rows: list[T] | None) -> T | None:
    return rows[-1] if rows else None
