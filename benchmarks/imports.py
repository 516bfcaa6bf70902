"""How long `from billing import BillableTask, setup` takes in a process that has Celery and its transports already."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Final

from benchmarks.rows import Row
from benchmarks.servers import Servers
from benchmarks.workers import ROOT

MARK_SECONDS: Final = 0.25
TURNS: Final = 11

#: What an app that sends tasks over RabbitMQ and reads results from Redis has imported anyway.
_CELERY: Final = "from celery import Celery, Task; import celery.backends.redis, kombu.transport.pyamqp"
_MEASURE: Final = """\
import time
started = time.perf_counter()
{celery}
with_celery = time.perf_counter()
from billing import BillableTask, setup
print(with_celery - started, time.perf_counter() - with_celery)
"""


def rows(servers: Servers) -> list[Row]:
    """Measure in fresh interpreters; the quickest counts, since an import does the same work each time."""
    times = [_import_once() for _ in range(TURNS // 2 if servers.quick else TURNS)]
    celery, ours = (min(column) for column in zip(*times, strict=True))
    return [
        Row(
            name="from billing import BillableTask, setup",
            value=ours,
            unit="s more",
            against=f"Celery with its Redis and AMQP transports: {celery:.2f} s",
            mark=MARK_SECONDS,
            met=ours <= MARK_SECONDS,
            raw={"seconds": [second for _, second in times], "median": statistics.median(s for _, s in times)},
        )
    ]


def _import_once() -> tuple[float, float]:
    """Return the seconds of importing Celery, and then of importing billing."""
    program = _MEASURE.format(celery=_CELERY + "; import kombu.transport.redis")
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    first, second = printed.stdout.split()
    return float(first), float(second)
