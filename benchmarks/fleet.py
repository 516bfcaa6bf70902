"""What a measured worker runs: `celery -A benchmarks.fleet worker`, billed or not as `BENCHMARK_BILLED` says.

Both are the same app with the same tasks under the same names; the unbilled one imports nothing of billing. Each child
writes its progress into a file of its own, which the benchmark reads: no server is asked how far a burst is.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import celery
from celery import signals

SKU: Final = "benchmark"
#: Of one child: the burst that it works on, when the first task of it began and the last one ended, and how many have.
PROGRESS: Final = struct.Struct("qqqq")
WAIT_SECONDS: Final = 0.02
#: Events that the task of celery-batches takes at once.
BATCH: Final = 500


def make_app(environment: Mapping[str, str]) -> celery.Celery:
    """Return the app whose servers, and whether it is billed, are told by `environment`."""
    made = celery.Celery(
        "benchmark", broker=environment["BILLING_BROKER_URL"], backend=environment["BILLING_RESULT_URL"]
    )
    made.conf.update(
        task_default_queue="tasks",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        broker_connection_retry_on_startup=True,
    )
    options: dict[str, Any] = {"shared": False}
    if environment["BENCHMARK_BILLED"] == "yes":
        from billing import BillableTask, setup  # noqa: PLC0415 - the unbilled worker must not pay for the import

        setup(made)
        options |= {"base": BillableTask, "sku": SKU}

    @made.task(name="empty", **options)
    def empty(client_id: str, burst: int) -> None:
        """Do nothing."""

    @made.task(name="wait", **options)
    def wait(client_id: str, burst: int) -> None:  # noqa: ARG001 - billing and `Progress` read them
        """Wait, as for a remote service."""
        time.sleep(WAIT_SECONDS)

    (_add_batched_insert if environment.get("BENCHMARK_BATCHES") else _add_insert)(made)
    return made


def _add_insert(app: celery.Celery) -> None:
    @app.task(name="insert", shared=False)
    def insert(event: str, burst: int) -> None:  # noqa: ARG001 - `Progress` reads it
        """Insert one usage event into a plain table."""
        from benchmarks import one_row  # noqa: PLC0415 - the other workers need no database

        one_row.insert(event)


def _add_batched_insert(app: celery.Celery) -> None:
    from celery_batches import Batches  # noqa: PLC0415 - only the environment with Celery 5.6 has it

    # As many as a batch for each child, and as many again, or a batch is never full.
    app.conf.worker_prefetch_multiplier = 2 * BATCH

    @app.task(name="insert", base=Batches, shared=False, flush_every=BATCH, flush_interval=1)
    def insert(requests: list[Any]) -> None:
        """Insert many usage events into a plain table."""
        from benchmarks import one_row  # noqa: PLC0415 - the other workers need no database

        one_row.insert_many(request.args[0] for request in requests)


class Progress:
    """How far this process is with the burst at hand, in a file that others may read at any time."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(PROGRESS.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PROGRESS.size)
        self._burst = self._count = self._first = self._tasks = 0

    def begin(self, args: Any, **_: Any) -> None:
        """Note the beginning of a task (signal `task_prerun`), or of as many as celery-batches has joined."""
        joined = args[0] if isinstance(args[0], list) else None
        burst, self._tasks = (joined[0].args[1], len(joined)) if joined else (args[1], 1)
        if burst != self._burst:
            self._burst, self._count, self._first = burst, 0, time.monotonic_ns()

    def end(self, **_: Any) -> None:
        """Note the end of a task (signal `task_postrun`)."""
        self._count += self._tasks
        PROGRESS.pack_into(self._map, 0, self._burst, self._first, time.monotonic_ns(), self._count)


def _watch(**_: Any) -> None:
    """Have a new child write its progress."""
    progress = Progress(Path(os.environ["BENCHMARK_PROGRESS"]) / str(os.getpid()))
    signals.task_prerun.connect(progress.begin, weak=False)
    signals.task_postrun.connect(progress.end, weak=False)


def _ready(**_: Any) -> None:
    """Tell the benchmark that this worker takes tasks."""
    Path(os.environ["BENCHMARK_PROGRESS"]).with_suffix(".ready").touch()


if "BENCHMARK_PROGRESS" in os.environ:
    app = make_app(os.environ)
    signals.worker_ready.connect(_ready, weak=False)
    signals.worker_process_init.connect(_watch, weak=False)
