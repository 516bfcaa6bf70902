"""What the tests of the overview share: a fleet of which each number is known, and readings of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from billing.connections import broker
from billing.events import topology
from billing.observability.overview.reading import FleetReader
from billing.observability.overview.values import FleetState
from billing.observability.overview.watch import Watch
from billing.task.runtime import Runtime
from tests.integration.recovering import Business
from tests.waiting import wait_until

#: Fields of a reading, by the server that they come from.
FIELDS = {
    "Redis": ("outbox", "holds", "recovering_shards"),
    "PostgreSQL": (
        *("seen", "laws", "dead_letters", "parked_tasks", "unplanned_credits", "increments", "months_ahead"),
        "deliveries",
    ),
    "broker": ("queues",),
}


def declare(business: Business) -> None:
    """Declare the usage queues, as a worker does."""
    with broker.connection(business.settings) as connection:
        topology.declare(business.settings, connection.default_channel)


def read_until(runtime: Runtime, condition: Callable[[FleetState], object], what: str) -> FleetState:
    """Read until a reading is as expected, and return it; the slow parts are read as often as the others."""
    reader = FleetReader(runtime, slow_pace_seconds=0.0)
    found: list[FleetState] = []

    def holds() -> object:
        found.append(reader.read(patience_seconds=60.0))
        return condition(found[-1])

    try:
        wait_until(holds, what)
    finally:
        reader.close()
    return found[-1]


def read_once(runtime: Runtime) -> FleetState:
    """Read when every part has answered."""
    return read_until(runtime, is_whole, "every part answers")


def is_whole(state: FleetState) -> bool:
    """Whether everything that can be there is there."""
    return missing(state) == () and state.holds is not None and state.holds.credits is not None


def missing(state: FleetState, *servers: str) -> tuple[str, ...]:
    """Return the fields of some servers (none named: of all) that a reading lacks."""
    fields = [field for server in servers or FIELDS for field in FIELDS[server]]
    return tuple(field for field in fields if getattr(state, field) is None)


@contextlib.contextmanager
def watching(business: Business, **changes: Any) -> Iterator[Watch]:
    """Watch the fleet all the time, until the block ends, with production's bounds."""
    bounds = {"redis_timeout_seconds": 1.0, "publish_timeout_seconds": 2.0, "database_timeout_seconds": 5.0}
    settings = dataclasses.replace(business.settings, **{**bounds, **changes})
    runtime = Runtime(lambda: settings)
    watch = Watch(runtime, every_seconds=0.1, slow_pace_seconds=0.1)
    try:
        yield watch
    finally:
        watch.close()
        runtime.close()
