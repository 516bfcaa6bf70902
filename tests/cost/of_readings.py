"""What it costs to look: a slice of reconciliation, a receipt, a page of Flower, the doctor; and to grant credits."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from billing import admin
from billing.connections import postgres
from billing.core.clock import SystemClock, to_milliseconds
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.observability.doctor.examine import examine
from billing.observability.overview.reading import FleetReader
from billing.reconciliation.continuous import keeping
from billing.reconciliation.continuous.chase import Chase
from billing.reconciliation.continuous.docket import Docket
from billing.reconciliation.continuous.standing import StandingBook
from billing.reconciliation.continuous.walk import Walk
from billing.task.runtime import Runtime
from tests.cost.place import Place
from tests.cost.wires import Counts
from tests.usage_events import delivered, usage_event

CLIENTS: Final = 20
LINES: Final = 50
HOUR: Final = timedelta(hours=1)
#: In the middle of a day, so that what is read by days is one day.
NOON: Final = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
#: What a page renews rarely; within half of that it reads only what is new each time.
SLOW_SECONDS: Final = 3_600.0
PATIENCE_SECONDS: Final = 60.0


class LeapingClock(SystemClock):
    """The machine's clock, whose monotonic time leaps when it is told to: what rests between two readings is over."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        """Return the machine's seconds, and those of all leaps."""
        return super().monotonic() + self._ahead

    def leap(self, seconds: float) -> None:
        """Let so much time have passed."""
        self._ahead += seconds


def measure(place: Place) -> dict[str, Counts]:
    """Count each of them once everything is connected."""
    found: dict[str, Counts] = {}

    def counted(name: str, work: Callable[[], object], *wires: str, warm: bool = True) -> None:
        if warm:
            work()
        counts = place.wires.counted(work, *(wires or ("redis", "sql", "amqp")))
        found[name] = {what: count for what, count in counts.items() if "bytes" not in what and "frames" not in what}

    clock = LeapingClock()
    with place.runtime(clock) as runtime:
        settings = runtime.settings
        for shard in range(settings.shards):
            place.buckets.verify(shard, expected=None)
        for number in range(CLIENTS):
            admin.add_client(settings, f"client-{number}")
        counted("grant", lambda: admin.grant(settings, "client-0", 100, key=uuid.uuid4().hex), "redis", "sql")
        counted("reconcile.slice", _slicing(runtime), "redis", "sql")
        counted("quote", lambda: admin.quote(settings, "client-0", "page", 1), "redis", "sql")
        _use(place, LINES)
        counted("receipt", lambda: _receipt(runtime), "sql")
        reader = FleetReader(runtime, slow_pace_seconds=SLOW_SECONDS)
        for name, seconds in (("flower.page", SLOW_SECONDS / 2), ("flower.page_with_all", SLOW_SECONDS)):
            reader.read(patience_seconds=PATIENCE_SECONDS)
            clock.leap(seconds)
            counted(name, lambda: reader.read(patience_seconds=PATIENCE_SECONDS), warm=False)
        reader.close()
        counted("doctor", lambda: examine(runtime))
    return found


def _slicing(runtime: Runtime) -> Callable[[], object]:
    """Return what compares the first slice of clients, each time anew."""

    def slicing() -> None:
        engine = runtime.engine
        with engine.begin() as connection:
            docket = Docket(StandingBook(keeping.standing(connection)), connection, datetime.now(UTC))
            walk = Walk(runtime, engine, docket, Chase(runtime, engine, docket))
            reached = walk.slice(-1, "")
            assert reached is not None
            assert reached.clients == CLIENTS

    return slicing


def _use(place: Place, lines: int) -> None:
    settings = place.settings()
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    at = to_milliseconds(NOON)
    log.write([delivered(usage_event("client-0", at_milliseconds=at, occurred_at=at)) for _ in range(lines)])
    log.close()


def _receipt(runtime: Runtime) -> int:
    return len(list(admin.receipt(runtime.settings, "client-0", NOON - HOUR, NOON + HOUR)))
