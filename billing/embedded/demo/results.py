"""Knows how every submitted task ended, by asking the result backend for many results at once.

One `MGET` for hundreds of tasks: thousands of results cost a few round trips, not a wait per task. A result is final
once it is read as success or failure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import celery
from celery import states

from billing.embedded.demo.workload import Order

CHUNK: Final = 500
_REFUSAL: Final = "InsufficientCredits"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a task ended: `error` is the exception's name and text, "" for a success."""

    succeeded: bool
    refused: bool = False
    error: str = ""


class Results:
    """The endings of some tasks, as far as they are known."""

    def __init__(self, app: celery.Celery) -> None:
        self._backend: Any = app.backend
        self.orders: dict[str, Order] = {}
        self.endings: dict[str, Ending] = {}
        self._pending: dict[str, None] = {}

    def expect(self, task_id: str, order: Order) -> None:
        """Wait for one more task."""
        self.orders[task_id] = order
        self._pending[task_id] = None

    @property
    def pending(self) -> int:
        """How many tasks have not ended."""
        return len(self._pending)

    def poll(self) -> None:
        """Read the results that have come since the last time."""
        for chunk in _chunks(list(self._pending)):
            keys = [self._backend.get_key_for_task(task_id) for task_id in chunk]
            for task_id, stored in zip(chunk, self._backend.mget(keys), strict=True):
                ending = _ending(self._backend.decode_result(stored)) if stored else None
                if ending is not None:
                    self.endings[task_id] = ending
                    del self._pending[task_id]

    def succeeded(self) -> frozenset[str]:
        """Return the ids of the tasks that succeeded."""
        return frozenset(task_id for task_id, ending in self.endings.items() if ending.succeeded)


def _ending(stored: Mapping[str, Any]) -> Ending | None:
    if stored["status"] == states.SUCCESS:
        return Ending(succeeded=True)
    if stored["status"] not in states.READY_STATES:
        return None
    # Celery makes the exception itself again, by its class where that can be imported.
    error = stored.get("result")
    name = type(error).__name__
    return Ending(succeeded=False, refused=name == _REFUSAL, error=f"{name}: {error}")


def _chunks(task_ids: list[str]) -> Iterator[list[str]]:
    remaining = iter(task_ids)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk
