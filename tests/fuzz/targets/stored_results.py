"""L10: a stored result that is none is told apart from a result backend that is away, and is told by no traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from typing import Any, Final

import celery
from celery.backends.base import KeyValueStoreBackend

from billing.core.errors import Unreachable
from billing.explaining.results import read_result
from billing.explaining.steps import _of_result
from billing.task.stored_results import UNREADABLE, status_of, stored_at
from tests.fuzz.laws import check_line, hold
from tests.fuzz.target import Target


class Stored(KeyValueStoreBackend):
    """A result backend that has one record, as Redis and memcached keep it."""

    data = b""

    def get(self, key: str) -> bytes:
        """Return the record."""
        return self.data


class App(celery.Celery):
    """An app whose results are these."""

    def _get_backend(self) -> Any:
        return Stored(app=self)


_APP: Final = App("fuzzed", set_as_current=False)


def check(data: bytes) -> None:
    """Read a record as the reaper and as `billing explain` do."""
    backend: Any = _APP.backend
    Stored.data = data or b" "
    backend._cache.clear()
    with suppress(*UNREADABLE):
        meta = backend.get_task_meta("task-1")
        hold(that=isinstance(status_of(meta), str), but=meta)
        at = stored_at(meta.get("date_done"))
        hold(that=at is None or at.tzinfo is UTC, but=at)
    backend._cache.clear()
    with suppress(Unreachable):
        result = read_result(_APP, "task-1")
        if result is not None:
            step = _of_result(result)
            check_line(f"{step.what} {step.detail}")


def seeds() -> Iterator[bytes]:
    """Yield a success, a failure, and states of one's own."""
    done = {"status": "SUCCESS", "result": 5, "traceback": None, "children": [], "date_done": "2026-11-22T00:00:00"}
    failed = {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
    for more in (
        {},
        {"status": "FAILURE", "result": failed},
        {"status": "FAILURE", "result": {**failed, "exc_module": "billing.core.errors", "exc_type": "UnknownClient"}},
        {"status": "RETRY", "result": {"exc_type": "Retry", "exc_message": [], "exc_module": None}},
        {"status": "PENDING"},
        {"status": "CRAWLED", "worker": "w1@host", "name": "shop.capture"},
        {"date_done": "0001-01-01T00:00:00+14:00"},
        {"date_done": "9999-12-31T23:59:59-14:00"},
        {"status": None},
    ):
        yield json.dumps({**done, **more, "task_id": "task-1"}).encode()
    yield b"[]"


TARGET = Target(
    check=check, seeds=seeds, words=(b'"status":', b'"FAILURE"', b'"exc_type":', b'"exc_module":', b'"date_done":')
)
