"""What the processes of the crash points do: production's own work, on one queue, within a bound."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import celery
import psycopg

import billing
from billing.alerts.announcing import Announcer
from billing.alerts.recording import record_and_announce
from billing.core.errors import AlreadyCharged
from billing.fulfillment import consumer
from billing.fulfillment.consumer import Bounds, Consumer
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.drain import drain
from billing.fulfillment.log import BatchReport
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.integration import services
from billing.recovery.postings import apply_postings
from billing.task.attachment import attachment_of
from billing.task.runtime import Runtime

#: Bounds a process that never comes to its point.
SECONDS: Final = 300.0
#: The blocks that a publisher bills, by the client that pays.
BLOCKS: Final = tuple((("acme", "brook")[number % 2], f"block-{number}") for number in range(12))
SKU: Final = "page"
#: The batch at which a consumer is told to stop, or whose write hangs.
TURNING_BATCH: Final = 2
#: A consumer that is cut off gives its batch back soon.
GIVE_BACK_SECONDS: Final = 0.2


def _publisher(runtime: Runtime) -> None:
    """Bill blocks, as a web view or a worker does; a block that was charged before is not run again."""
    app = celery.Celery("crashing", set_as_current=False)
    app.conf.update({f"billing_{name}": value for name, value in dataclasses.asdict(runtime.settings).items() if value})
    billing.setup(app)
    for client_id, key in BLOCKS:
        try:
            with billing.reserve(client_id, SKU, app=app, key=key):
                pass
        except AlreadyCharged:
            continue
    attachment_of(app).lifecycle.close()
    attachment_of(app).runtime.close()


def _relay(runtime: Runtime) -> None:
    services.make_relay(runtime).sweep()


def _consumer(runtime: Runtime) -> None:
    services.make_consumer(runtime, [0]).run(Bounds(seconds=SECONDS))


def _drain(runtime: Runtime) -> None:
    drain(runtime.settings, services.make_usage_log(runtime), seconds=SECONDS, batches=100, idle_seconds=SECONDS)


def _stopped_consumer(runtime: Runtime) -> None:
    """Consume, and be told to stop while the second batch is written."""
    batches = 0

    def stop(_: object) -> None:
        nonlocal batches
        batches += 1
        if batches == TURNING_BATCH:
            stopped.stop()

    stopped = Consumer(runtime.settings, services.make_usage_log(runtime), queues=[0], after_commit=stop)
    stopped.run(Bounds(seconds=SECONDS))


class _Hanging(PostgresUsageLog):
    """A usage log whose second write gets no answer."""

    batches = 0

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write, or hang."""
        self.batches += 1
        if self.batches == TURNING_BATCH:
            threading.Event().wait(SECONDS)
        return super().write(batch)


def _cut_off_consumer(runtime: Runtime) -> None:
    """Consume, and find that the database does not answer."""
    setattr(consumer, "GIVE_BACK_SECONDS", GIVE_BACK_SECONDS)  # noqa: B010 - replaced in this process only
    log = _Hanging(lambda: psycopg.connect(runtime.settings.database_url), shards=runtime.settings.shards)
    Consumer(runtime.settings, log, queues=[0]).run(Bounds(seconds=SECONDS))


def _postings(runtime: Runtime) -> None:
    apply_postings(runtime)


def _alerts(runtime: Runtime) -> None:
    announcer = Announcer(runtime)
    record_and_announce(runtime, announcer)
    announcer.finish()


PROCESSES: Final[Mapping[str, Callable[[Runtime], None]]] = {
    "publisher": _publisher,
    "relay": _relay,
    "consumer": _consumer,
    "consumer that stops": _stopped_consumer,
    "consumer that is cut off": _cut_off_consumer,
    "drain": _drain,
    "postings": _postings,
    "alerts": _alerts,
}
