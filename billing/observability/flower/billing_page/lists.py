"""Reads what waits for a person, bounded: dead letters without their bytes, increments in doubt, parked tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from billing.fulfillment import letters
from billing.fulfillment.letter import LetterPage
from billing.observability.flower.billing_page.reading import reading
from billing.schema.parked import parked_task
from billing.schema.stripe import stripe_increment
from billing.task.runtime import Runtime

#: L9: lines of one page.
SHOWN_MAX: Final = 100

#: The states of increments that wait for a person.
IN_DOUBT: Final = ("quarantined", "rejected")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class IncrementLine:
    """An increment that nobody but a person can move on."""

    increment_id: int
    client_id: str
    customer_id: str
    event_name: str
    units: int
    state: str
    reason: str
    attempts: int
    planned_at: datetime
    last_attempt_at: datetime | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParkedLine:
    """A task that waits for credits."""

    parked_id: int
    client_id: str
    task: str
    task_id: str
    sku: str
    credits: int
    available: int
    parked_at: datetime
    expires_at: datetime


def read_letters(runtime: Runtime) -> LetterPage:
    """Return the newest open dead letters; a page never has their bytes."""
    with reading(runtime) as connection:
        return letters.page(connection, state="open", reason="", queue="", before=None, limit=SHOWN_MAX)


def read_increments(runtime: Runtime, *, limit: int = SHOWN_MAX) -> Sequence[IncrementLine]:
    """Return the oldest increments that are quarantined or rejected, and one more than `limit` if there are more."""
    columns = [stripe_increment.c[field.name] for field in dataclasses.fields(IncrementLine)]
    oldest = (
        select(*columns)
        # Said as the index has it, which holds the few that are open.
        .where(
            stripe_increment.c.state.not_in(("sent", "confirmed", "written_off")),
            stripe_increment.c.state.in_(IN_DOUBT),
        )
        .order_by(stripe_increment.c.increment_id)
        .limit(limit + 1)
    )
    with reading(runtime) as connection:
        return [IncrementLine(**row) for row in connection.execute(oldest).mappings()]


def read_parked(runtime: Runtime) -> Sequence[ParkedLine]:
    """Return the tasks that have waited longest, and one more than are shown if there are more."""
    with reading(runtime) as connection:
        return parked_lines(connection, limit=SHOWN_MAX + 1)


def parked_lines(connection: Connection, *, limit: int, client_id: str | None = None) -> Sequence[ParkedLine]:
    """Return the tasks that wait, of one client or of all, in the order of parking."""
    columns = [parked_task.c[field.name] for field in dataclasses.fields(ParkedLine)]
    waiting = select(*columns).where(parked_task.c.state == "waiting")
    if client_id is not None:
        waiting = waiting.where(parked_task.c.client_id == client_id)
    found = connection.execute(waiting.order_by(parked_task.c.parked_id).limit(limit))
    return [ParkedLine(**row) for row in found.mappings()]
