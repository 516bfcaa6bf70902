"""A planner in a process of its own that kills itself before a step: `killed_planner.py SETTINGS STEP AT PERIODS`.

It runs on the clock of the test, at the instant AT. PERIODS: what the sink says of each customer, as [start, end].
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from billing.connections import postgres
from billing.core.settings import Settings
from billing.sinks.sync.planning.planner import Planner
from billing.sinks.sync.postgres import planning as postgres_planning
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.postgres.plan import PostgresPlan
from tests.integration.subscribed import Periods, period
from tests.integration.syncing import CALENDAR, TestClock

#: The steps of a plan that dies: before each of them, and after the last one that writes.
STEPS: Final = ("read", "keep_periods", "to_reissue", "replace", "unplanned", "write", "advance", "commit")


def main() -> None:
    """Plan, and die."""
    settings, step, at, said = sys.argv[1:]
    source = Periods()
    for customer_id, (start, end) in json.loads(said).items():
        source.put(customer_id, period(datetime.fromisoformat(start), datetime.fromisoformat(end)))
    _doom(step)
    engine = postgres.engine(Settings(**json.loads(settings)))
    rules = type(CALENDAR)(meter=CALENDAR.meter)
    Planner(PostgresLog(engine), TestClock(datetime.fromisoformat(at)), rules, source=source).plan()


def _doom(step: str) -> None:
    """Replace a step by the end of this process."""
    places: dict[str, tuple[Any, str]] = {
        "read": (Periods, "read"),
        "keep_periods": (postgres_planning, "_keep"),
        "to_reissue": (PostgresPlan, "to_reissue"),
        "replace": (PostgresPlan, "replace"),
        "unplanned": (PostgresPlan, "unplanned"),
        "write": (PostgresPlan, "write"),
        "advance": (PostgresPlan, "_advance"),
    }
    if step == "commit":
        _after(PostgresPlan, "_advance")
    else:
        owner, name = places[step]
        setattr(owner, name, _die)


def _after(owner: Any, name: str) -> None:
    before: Callable[..., object] = getattr(owner, name)

    def run(*args: Any, **more: Any) -> None:
        before(*args, **more)
        _die()

    setattr(owner, name, run)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
