"""The worker's bootstep `--fulfillment`: the consumer's thread and the short loops, from relay to reconciler.

It is a *worker* bootstep, so a lost task connection does not restart it, with a broker connection of its own. It
refuses prefork: a thread in a prefork parent would be forked with its locks.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps
from celery.worker import state

from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.integration.metrics_step import metrics_here
from billing.task.attachment import attachment_of

if TYPE_CHECKING:
    from billing.integration.services import Services

logger = logging.getLogger(__name__)

MAINTENANCE_QUEUE: Final = "billing.maintenance"
_POOLS: Final = ("solo", "thread")


class FulfillmentStep(bootsteps.StartStopStep):
    """Runs the fulfillment consumer inside a Celery worker."""

    requires = ("celery.worker.components:Pool", "billing.integration.lease_step:LeaseStep")

    def __init__(self, parent: Any, fulfillment: str | None = None, **options: Any) -> None:
        super().__init__(parent, **options)
        self.enabled = fulfillment is not None
        self._services: Services | None = None
        if not self.enabled:
            return
        settings = attachment_of(parent.app).runtime.settings
        try:
            self._queues = parse_queues(fulfillment or "all", settings)
            _check_pool(parent)
        except InvalidValue as error:
            message = f"billing: {error}"
            raise SystemExit(message) from error
        if parent.app.amqp.queues._consume_from is None:  # noqa: SLF001 - there is no public way to ask
            # Without -Q the consumer would serve, and hold up, the fleet's task queues.
            parent.app.amqp.queues.select([MAINTENANCE_QUEUE])

    def start(self, parent: Any) -> None:
        """Start the consumer and the loops."""
        # Task workers have this step and never start it: the consumer's modules are not for their memory.
        from billing.integration.services import Services  # noqa: PLC0415

        services = Services(
            parent.app,
            hostname=parent.hostname,
            queues=self._queues,
            on_failure=_stop_worker,
            metrics=metrics_here(),
        )
        services.start()
        self._services = services
        attachment_of(parent.app).fulfills = True
        logger.info("billing: fulfillment of usage queues %s", ", ".join(map(str, self._queues)))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - the signature is Celery's
        """Stop them: the batch at hand is committed, or given back to the broker."""
        if self._services is not None:
            self._services.stop()
            self._services = None

    terminate = stop


def parse_queues(text: str, settings: Settings) -> list[int]:
    """Return the usage queues of `--fulfillment`: all of them, or those whose numbers are given."""
    if text == "all":
        return list(range(settings.usage_queues))
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [-1]
    if not all(0 <= number < settings.usage_queues for number in numbers):
        raise InvalidValue(
            "--fulfillment", text, f"must be queue numbers from 0 to {settings.usage_queues - 1}, as 0,1"
        )
    return numbers


def _check_pool(parent: Any) -> None:
    name = str(parent.pool_cls.__module__).rsplit(".", 1)[-1]
    if name not in _POOLS:
        raise InvalidValue("--pool", name, "must be solo or threads for a worker with --fulfillment")


def _stop_worker() -> None:
    """End the worker: a consumer that must not go on is no consumer, and its standby takes over."""
    logger.critical("billing: the fulfillment consumer stopped; this worker ends")
    state.should_stop = os.EX_SOFTWARE  # type: ignore[assignment]  # Celery's stubs say None; its loop wants a code
