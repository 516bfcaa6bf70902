"""Formats any record as one line of JSON: time (UTC), level, logger, process, message, and the record's own fields.

A change of state (`core/change_log.py`) has its ids as fields and its word as `change`; whatever a task logs has the
task's id and name. It writes what the record says and no more: neither local variables nor arguments of calls.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import celery
from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

_FIELDS: Final = {"levelname": "level", "name": "logger", "processName": "process"}
#: What Celery's own formatter, of another handler, leaves on a record where no task is running.
_NO_TASK: Final = (None, "???")


class JsonFormatter(_JsonFormatter):
    """A formatter for `logging`; it needs no arguments: `{"()": "billing.observability.logs.JsonFormatter"}`."""

    def __init__(self, **options: Any) -> None:
        super().__init__((*_FIELDS, "message"), rename_fields=_FIELDS, timestamp="time", **options)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Take the fields of a record, but for what Celery adds to its own: a task's arguments, and its result."""
        super().add_fields(log_data, record, message_dict)
        if record.name.startswith("celery."):
            log_data.pop("data", None)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Bind the task that is running here, and leave out of a change's message what its fields say."""
        found: dict[str, Any] = super().process_log_record(log_data)
        found.pop("task_name", None)
        if found.get("task_id") in _NO_TASK:
            found.pop("task_id", None)
        if "change" in found:
            found["message"] = f"billing: {found['change']}"
        task: Any = celery.current_task
        if task and task.request.id is not None:
            found.setdefault("task_id", task.request.id)
            found.setdefault("task", task.name)
        return found
