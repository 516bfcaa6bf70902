"""Empty the usage queues for a bounded time: the consumer's own core, as a task or a command can run it.

It does what the consumer does and ends by itself. On a queue that a consumer already serves it gets nothing (single
active consumer) and ends idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from billing.core.settings import Settings
from billing.fulfillment.consumer import AfterCommit, Bounds, Consumer
from billing.fulfillment.log import UsageLog


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainReport:
    """What a drain did. `trouble` says what was unreachable when it ended, if something was."""

    batches: int
    events: int
    rows: int
    duplicates: int
    dead_letters: int
    seconds: float
    trouble: str | None


def drain(
    settings: Settings,
    usage_log: UsageLog,
    *,
    seconds: float,
    batches: int,
    idle_seconds: float,
    queues: Sequence[int] | None = None,
    after_commit: AfterCommit | None = None,
    stop: threading.Event | None = None,
) -> DrainReport:
    """Write what waits, until `seconds` or `batches` are used up or nothing came for `idle_seconds`.

    Raises `Fatal` when so many events in a row were refused that the consumer stopped.
    """
    started = time.monotonic()
    consumer = Consumer(settings, usage_log, queues=queues, after_commit=after_commit, stop=stop)
    consumer.run(Bounds(seconds=seconds, batches=batches, idle_seconds=idle_seconds))
    if consumer.error is not None:
        raise consumer.error
    written = consumer.written
    return DrainReport(
        batches=consumer.batches,
        events=written.events,
        rows=written.rows,
        duplicates=written.duplicates,
        dead_letters=written.dead_letters,
        seconds=time.monotonic() - started,
        trouble=None if consumer.trouble is None else str(consumer.trouble),
    )
