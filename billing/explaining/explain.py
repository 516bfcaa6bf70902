"""Tells the story of one task: asks every source, within bounds, and says which of them did not answer.

It only reads. Redis' notes come first, since they name runs that the books then find by their index.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from billing.core.errors import BillingError, InvalidValue
from billing.core.identifiers import check_client_id
from billing.core.ids import milliseconds_of
from billing.core.limits import TEXT_LENGTH_MAX
from billing.explaining.books import read_books, read_letters, read_parked
from billing.explaining.buckets import read_notes, read_runs, shards_of
from billing.explaining.evidence import Evidence
from billing.explaining.results import read_result, why_not
from billing.explaining.runs import runs_of
from billing.explaining.steps import steps_of
from billing.explaining.story import Story
from billing.explaining.unquoted import unquoted
from billing.explaining.verdicts import verdict_of
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

T = TypeVar("T")
_RUN_ID_VERSION: Final = 7


def explain(
    runtime: Runtime, task_id: str, *, client_id: str | None = None, app: Any = None, quotes: bool = True
) -> Story:
    """Return the story of a task by its id, or of one run by the run's.

    `client_id` says whose shard is looked through in Redis; without it, all are, within a bound. `app` has the result
    backend. A source that does not answer is named in `unanswered`. Without `quotes` an error whose text may quote an
    argument of the task is named by its class alone. Raises `InvalidValue` for what is no id.
    """
    check_task_id(task_id)
    if client_id is not None:
        check_client_id(client_id)
    found = gather(runtime, task_id, client_id=client_id, app=app)
    return story_of(found if quotes else unquoted(found))


def check_task_id(task_id: object) -> str:
    """Return a task id as the log would take it; refuse anything else."""
    rule = f"must be 1 to {TEXT_LENGTH_MAX} printable characters: a Celery task id, or a run id"
    if not isinstance(task_id, str) or not 1 <= len(task_id) <= TEXT_LENGTH_MAX or not task_id.isprintable():
        raise InvalidValue("task_id", task_id if not isinstance(task_id, str) else task_id[:80], rule)
    return task_id


def run_id_of(task_id: str) -> uuid.UUID | None:
    """Return the run id that a text may be; None for one that is none."""
    try:
        found = uuid.UUID(task_id)
    except ValueError:
        return None
    return found if found.version == _RUN_ID_VERSION and milliseconds_of(found) else None


class Asking:
    """Asks sources one after the other, and names those that do not answer."""

    def __init__(self) -> None:
        self.unanswered: list[str] = []

    def __call__(self, source: str, question: Callable[[], T]) -> T | None:
        """Return an answer, or None for a source that has none."""
        try:
            return question()
        except BillingError as error:
            self.unanswered.append(f"{source}: {error}")
        except Exception as error:
            logger.exception("billing: %s cannot be asked", source)
            self.unanswered.append(f"{source}: {type(error).__name__}")
        return None


def gather(runtime: Runtime, task_id: str, *, client_id: str | None, app: Any) -> Evidence:
    """Ask every source; those that do not answer are named."""
    asked, now, run_id = Asking(), runtime.clock.now(), run_id_of(task_id)
    no_result = why_not(app)
    result = None if no_result else asked("the result backend", lambda: read_result(app, task_id))
    payers = {name for name in (client_id, result.client_id if result else None) if name}
    shards = shards_of(runtime.buckets, client_id)
    notes = asked("Redis", lambda: read_notes(runtime.buckets, task_id, run_id, shards, payers))
    noted = {note.run_id for note in notes[0] if note.run_id} if notes else set()
    known = {*noted, *([] if run_id is None else [run_id])}
    books = asked("PostgreSQL", lambda: read_books(runtime, task_id, run_id, now))
    if books is not None:
        known |= {line.run_id for line in books.lines}
        parked = asked("parked tasks", lambda: read_parked(runtime, task_id, known)) or ((), "")
        letters = asked("dead letters", lambda: read_letters(runtime, msgspec.json.encode(task_id))) or ((), "")
        known |= {row.run_id for row in parked[0]}
        limits = tuple(limit for limit in (parked[1], letters[1]) if limit)
        books = dataclasses.replace(books, parked=parked[0], letters=letters[0], limits=limits)
    buckets = None
    if notes is not None:
        buckets = asked("Redis", lambda: read_runs(runtime.buckets, task_id, run_id, sorted(known), shards, notes))
    found = Evidence(
        task_id=task_id,
        now=now,
        books=books,
        buckets=buckets,
        result=result,
        unanswered=tuple(asked.unanswered),
        no_result=no_result,
    )
    if run_id is None or no_result or found.correlated == task_id:
        return found
    # A run was asked for by its own id: its result has its task's.
    result = asked("the result backend", lambda: read_result(app, found.correlated))
    return dataclasses.replace(found, result=result, unanswered=tuple(asked.unanswered))


def story_of(found: Evidence) -> Story:
    """Assemble the story. Pure."""
    runs = runs_of(found)
    clients = [run.client_id for run in runs if run.client_id]
    of_result = found.result.client_id if found.result else ""
    return Story(
        task_id=found.task_id,
        client_id=clients[0] if clients else of_result,
        verdict=verdict_of(found, runs),
        steps=steps_of(found, runs),
        unanswered=found.unanswered,
        run_ids=tuple(run.run_id for run in runs if run.run_id is not None),
    )
