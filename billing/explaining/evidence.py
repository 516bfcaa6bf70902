"""What the sources say of one task, before anything is made of it. Pure values."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from billing.admin.receipt_line import Reported
from billing.credits.values import SettledRun, StoredHold
from billing.events.usage_event import EventHead, UsageEvent
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.telling.next_step import NextStep
from billing.task.trail import Note


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A row of the usage history, with the increments that carry it. `grants`: grant id → credits; grant 0 is debt."""

    run_id: uuid.UUID
    line: int
    settlement_id: str
    client_id: str
    correlation_id: str
    task: str
    attempt: int
    sku: str
    quantity: int
    credits: int
    grants: Mapping[int, int]
    price_version: int
    late: bool
    submitted_at: datetime | None
    occurred_at: datetime
    recorded_at: datetime
    corrects: uuid.UUID | None
    mode: str | None
    reason: str = ""
    reported: tuple[Reported, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """A grant that paid, as the catalog has it."""

    grant_id: int
    kind: str
    credits: int
    key: str
    created_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parked:
    """A task that was parked."""

    parked_id: int
    run_id: uuid.UUID
    client_id: str
    task: str
    sku: str
    credits: int
    available: int
    state: Literal["waiting", "started", "expired", "cancelled"]
    times: int
    parked_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    begun_at: datetime | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A dead letter whose body names the task, or the run."""

    letter_id: int
    reason: str
    state: str
    received_at: datetime
    ended_at: datetime | None
    remark: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """An increment that carries a line, and what happens next with it."""

    increment: Increment
    next: NextStep


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A hold in Redis, and the head of its event; None where that cannot be read."""

    hold: StoredHold
    head: EventHead | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What the result backend says. `error` is the exception's type and text, where it failed; `kind` only the type."""

    state: str
    error: str = ""
    kind: str = ""
    client_id: str = ""
    stored_at: datetime | None = None
    worker: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """What PostgreSQL has."""

    lines: tuple[Line, ...] = ()
    grants: Mapping[int, Grant] = dataclasses.field(default_factory=dict)
    sent: Mapping[int, Sent] = dataclasses.field(default_factory=dict)
    parked: tuple[Parked, ...] = ()
    letters: tuple[Letter, ...] = ()
    #: Which of the clients are linked to a Stripe customer.
    linked: frozenset[str] = frozenset()
    #: What was not looked at, in words.
    limits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Buckets:
    """What Redis has. `now` is its clock, None where it was not asked."""

    held: tuple[Held, ...] = ()
    settled: tuple[SettledRun, ...] = ()
    waiting: tuple[UsageEvent, ...] = ()
    notes: tuple[Note, ...] = ()
    #: Notes of the task's client that were not kept, since there were too many.
    notes_dropped: int = 0
    now: datetime | None = None
    limits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All of it. A source that was not asked, or has not answered, is None; `unanswered` says why it has not."""

    task_id: str
    now: datetime
    books: Books | None
    buckets: Buckets | None
    result: Result | None
    unanswered: tuple[str, ...] = ()
    #: Why nobody asked the result backend.
    no_result: str = ""

    @property
    def correlated(self) -> str:
        """Celery's id of the task: what was asked for, or where that was a run's id, as far as a source says it."""
        tasks = (
            *(line.correlation_id for line in (self.books.lines if self.books else ())),
            *(held.head.correlation_id for held in (self.buckets.held if self.buckets else ()) if held.head),
            *(event.correlation_id for event in (self.buckets.waiting if self.buckets else ())),
            *(note.task_id for note in (self.buckets.notes if self.buckets else ())),
        )
        return next(iter(tasks), self.task_id)
