"""Which rows of a client's usage history are meant: a span of time, one task, one workflow. Pure.

A workflow is the task that was submitted and all that it started: their rows have one root id. Its first task's rows
are found by their correlation id, which is the root id; only the others are in an index of root ids, so that an
ordinary task costs the history nothing for it.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

_SPAN: Final = {"start": "occurred_at >= :start", "end": "occurred_at < :end"}
_NAMED: Final = {
    "correlation_id": "correlation_id = :correlation_id",
    "root_id": "root_id = :root_id AND (correlation_id = :root_id OR root_id <> correlation_id)",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Rows from `start` up to, not including, `end`, of one task, and of one workflow; None: any."""

    start: datetime | None = None
    end: datetime | None = None
    correlation_id: str | None = None
    root_id: str | None = None

    @property
    def by_name(self) -> bool:
        """Whether a task or a workflow is asked for: few rows then, found by its id, whenever it ran."""
        return self.correlation_id is not None or self.root_id is not None

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    def named(self) -> str:
        """Return the condition on ids, in SQL."""
        return self._all(_NAMED)

    def condition(self) -> str:
        """Return the condition on time and ids, in SQL."""
        return self._all(_SPAN | _NAMED)

    def values(self) -> dict[str, Any]:
        """Return what the conditions' parameters stand for."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def _all(self, conditions: dict[str, str]) -> str:
        values = self.values()
        return " AND ".join(text for name, text in conditions.items() if name in values) or "TRUE"


EVERYTHING: Final = Selection()
