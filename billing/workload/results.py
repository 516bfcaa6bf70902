"""Knows how submitted tasks ended, by asking the result backend for many results at once.

One `MGET` for hundreds of tasks: thousands of results cost a few round trips, not a wait per task. A result is final
once it is read as success or failure. It refuses a backend that cannot be asked this way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import celery
from celery import states
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured

from billing.core.errors import Fatal

CHUNK: Final = 500
_REFUSAL: Final = "InsufficientCredits"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a task ended: `error` is the exception's name and text, "" for a success."""

    succeeded: bool
    refused: bool = False
    error: str = ""


class Results(Generic[T]):
    """The tasks that have not ended, each with what its submitter wants to remember of it."""

    def __init__(self, app: celery.Celery) -> None:
        self._backend = backend_of(app)
        self._pending: dict[str, T] = {}

    def forget(self, task_ids: Iterable[str]) -> None:
        """Remove the stored results of some tasks."""
        for task_id in task_ids:
            self._backend.forget(task_id)

    def expect(self, task_id: str, about: T) -> None:
        """Wait for one more task."""
        self._pending[task_id] = about

    @property
    def pending(self) -> int:
        """How many tasks have not ended."""
        return len(self._pending)

    def poll(self) -> list[tuple[str, T, Ending]]:
        """Return the tasks that have ended since the last time."""
        ended = self.endings(list(self._pending))
        return [(task_id, self._pending.pop(task_id), ending) for task_id, ending in ended.items()]

    def endings(self, task_ids: Sequence[str]) -> dict[str, Ending]:
        """Return the stored endings of some tasks; those without one are left out."""
        found: dict[str, Ending] = {}
        for chunk in _chunks(task_ids):
            keys = [self._backend.get_key_for_task(task_id) for task_id in chunk]
            values = self._backend.mget(keys)
            if isinstance(values, Mapping):  # of memcached, which leaves out what it does not have
                values = [values.get(key) for key in keys]
            for task_id, stored in zip(chunk, values, strict=True):
                ending = _ending(self._backend.decode_result(stored)) if stored else None
                if ending is not None:
                    found[task_id] = ending
        return found


def backend_of(app: celery.Celery) -> Any:
    """Return the result backend of an app, or raise `Fatal` for one that cannot be asked for many results at once."""
    try:
        backend = app.backend
    except (ImproperlyConfigured, ImportError) as error:
        raise Fatal(f"result_backend: cannot be used: {error}") from error
    if not isinstance(backend, BaseKeyValueStoreBackend):
        kind = type(backend).__name__
        raise Fatal(f"result_backend: {kind!r}: must be one that answers for many tasks at once, such as Redis")
    return backend


def _ending(stored: Mapping[str, Any]) -> Ending | None:
    if stored["status"] == states.SUCCESS:
        return Ending(succeeded=True)
    if stored["status"] not in states.READY_STATES:
        return None
    # Celery makes the exception itself again, by its class where that can be imported.
    error = stored.get("result")
    name = type(error).__name__
    return Ending(succeeded=False, refused=name == _REFUSAL, error=f"{name}: {error}")


def _chunks(task_ids: Sequence[str]) -> Iterator[list[str]]:
    remaining = iter(task_ids)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk
