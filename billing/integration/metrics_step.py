"""The worker's bootstep that counts what it bills and serves its metrics, where `billing_metrics_address` says so.

The main process alone answers. It takes the address before its pool begins, so that a worker whose address is taken
ends with one line and has started nothing; it answers until its pool is done. Without an address nothing is imported.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from billiard.process import current_process
from celery import bootsteps, signals

from billing.core.errors import InvalidValue
from billing.task.attachment import attachment_of

if TYPE_CHECKING:
    from billing.observability.metrics.worker import WorkerMetrics

logger = logging.getLogger(__name__)

#: The metrics of the worker whose main process this is, or was when this process was forked.
_metrics: list[WorkerMetrics] = []


class MetricsStep(bootsteps.StartStopStep):
    """Counts and serves."""

    #: It answers once all are there whose metrics it serves.
    requires = (
        "celery.worker.components:Pool",
        "billing.integration.lease_step:LeaseStep",
        "billing.integration.fulfillment_step:FulfillmentStep",
    )

    def __init__(self, parent: Any, fulfillment: str | None = None, **options: Any) -> None:
        super().__init__(parent, **options)
        runtime = attachment_of(parent.app).runtime
        self.enabled = bool(runtime.settings.metrics_address)
        if not self.enabled:
            return
        from billing.observability.metrics.worker import WorkerMetrics  # noqa: PLC0415 - off unless asked for

        try:
            metrics = WorkerMetrics(runtime.settings.metrics_address, fulfillment=fulfillment is not None)
        except InvalidValue as error:
            message = f"billing: {error}"
            raise SystemExit(message) from error
        runtime.observer = metrics.counts
        _metrics.append(metrics)
        signals.worker_shutdown.connect(_close, weak=False, dispatch_uid="billing.metrics.close")

    def start(self, parent: Any) -> None:  # noqa: ARG002 - the signature is Celery's
        """Answer from now on: the pool has begun."""
        logger.info("billing: metrics at %s", _metrics[-1].start())


def metrics_here() -> WorkerMetrics | None:
    """Return the metrics of this worker, or None where nobody asked for them."""
    return _metrics[-1] if _metrics else None


def enter_pool() -> None:
    """Count for a child of the pool, which this process is from now on."""
    index = getattr(current_process(), "index", None)
    if index is None:
        return
    for metrics in _metrics:
        if not metrics.enter(index):
            logger.warning("billing: the pool has more children than are counted: number %d is not", index)


def _close(**_: Any) -> None:
    while _metrics:
        _metrics.pop().close()
