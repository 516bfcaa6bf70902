"""What teams write first, beside ours, in one run: how many times as fast ours is, and what each way does not promise.

Ways to charge, and ways to write usage down. The two that need a worker, a Celery task per event and celery-batches,
stand beside the consumer (`one_by_one`), which is the one that they are compared with.
"""

from __future__ import annotations

from benchmarks import charging, recording
from benchmarks.rows import Row
from benchmarks.servers import Servers


def rows(servers: Servers) -> list[Row]:
    """Measure all of them."""
    return [*charging.rows(servers), *recording.rows(servers)]
