"""A task as Flower keeps it: with what was charged for it, and without its arguments and result.

What is not kept cannot be shown, searched, or written to Flower's file: events lose it when they come in. `task-billed`
adds its fields and leaves the state alone, whether it comes before or after the end of the task. A task that has ended
stays ended, though the event of its last retry comes after.
"""

from __future__ import annotations

import re
from typing import Any, Final

from celery import states
from celery.events.state import Task

from billing.observability.task_events.task_event import (
    CHARGED_FIELD,
    CLIENT_FIELD,
    FIELDS,
    OUTCOME_FIELD,
    RESERVED_FIELD,
    SKU_FIELD,
    TYPE,
)

#: The task list's columns: field and heading (None: Flower's own).
COLUMNS: Final[dict[str, str | None]] = {
    "name": None,
    "uuid": None,
    "state": None,
    CLIENT_FIELD: "Client",
    SKU_FIELD: "SKU",
    RESERVED_FIELD: "Reserved",
    CHARGED_FIELD: "Charged",
    OUTCOME_FIELD: "Outcome",
    "received": None,
    "runtime": None,
    "worker": None,
}

NOT_SHOWN: Final = "not shown"
_HIDDEN: Final = frozenset({"args", "kwargs", "result", "traceback"})
#: The class at the beginning of an error as Python writes it. One that writes itself may begin with an argument.
_ERROR_NAME: Final = re.compile(r"[^\W\d][\w.]*(?=\()")


class BilledTask(Task):
    """Celery's record of a task, with billing's fields."""

    billing_client = billing_sku = billing_charged = billing_reserved = billing_outcome = None
    #: In the order of a task's page, which begins with name, id and state.
    _fields = (*FIELDS, *Task._fields)  # type: ignore[attr-defined]  # the stubs lack it

    def event(  # type: ignore[override]  # the rest of Celery's signature is how it binds globals
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Take over what an event says, as far as it may be seen."""
        given = fields or {}
        if f"task-{type_}" == TYPE:
            self.__dict__.update({name: given[name] for name in FIELDS if name in given})
            return
        if type_ == "retried" and self.state in states.READY_STATES:
            # The worker that ran the earlier attempt may say so after another has ended the next one. Celery's own
            # record would then show RETRY for ever.
            return
        super().event(type_, timestamp, local_received, without_contents(given))


def without_contents(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an event's fields without arguments, result, and the text of an error, which may quote them."""
    kept = {name: value for name, value in fields.items() if name not in _HIDDEN}
    if kept.get("exception"):
        name = _ERROR_NAME.match(str(kept["exception"]))
        kept["exception"] = name.group() if name else NOT_SHOWN
    return kept


def shown(task: Any) -> Any:
    """Say on a page why arguments and result are empty (Flower's option `format_task`; `task` is a copy)."""
    task.args = task.kwargs = task.result = NOT_SHOWN
    return task


#: Sorted as a number: Flower would take "100" before "20".
NUMBERS: Final = frozenset({CHARGED_FIELD, RESERVED_FIELD})
#: Found by the search box.
SEARCHED: Final = (CLIENT_FIELD, SKU_FIELD, OUTCOME_FIELD)
