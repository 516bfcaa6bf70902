"""All that is counted, by the name of its part; each part counts on a place of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.cost import (
    of_batches,
    of_events,
    of_functions,
    of_imports,
    of_memory,
    of_readings,
    of_reports,
    of_tasks,
)
from tests.cost.place import Place

MEASURES: Final[Mapping[str, Callable[[Place], Mapping[str, Mapping[str, Any]]]]] = {
    "tasks": of_tasks.measure,
    "functions": of_functions.measure,
    "events": of_events.measure,
    "batches": of_batches.measure,
    "reports": of_reports.measure,
    "readings": of_readings.measure,
    "memory": of_memory.measure,
    "imports": of_imports.measure,
}
