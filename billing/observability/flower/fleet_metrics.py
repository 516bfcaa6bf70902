"""Flower's own /metrics, with those of the whole fleet among them, whichever app it shows.

That page is open to everybody who reaches Flower, as Flower has it: no client is named in any metric. Settings that are
wrong leave the fleet's metrics away, and say so in Flower's log; Flower's own are there all the same.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Final

import prometheus_client
from flower import urls
from flower.views.monitor import Metrics

from billing.core.errors import BillingError
from billing.observability.metrics.fleet import FleetMetrics
from billing.observability.overview.watch import Watch, watch_of
from billing.task.attachment import attachment_of

logger = logging.getLogger(__name__)

#: How long the first scrape waits for the first reading.
_FIRST_SECONDS: Final = 6.0


def install() -> None:
    """Put it in the place of Flower's, before Flower makes its application."""
    urls.handlers.insert(0, (r"/metrics", FleetMetricsPage))


class FleetMetricsPage(Metrics):  # type: ignore[misc]  # Flower has no types
    """Answers a scrape."""

    async def get(self) -> None:
        """Tell the latest reading of the fleet, and what Flower has counted."""
        watch = _registered(self.capp)
        if watch is not None:
            # Away from the loop, which has pages to show meanwhile.
            await asyncio.to_thread(watch.latest, wait_seconds=_FIRST_SECONDS)
        await super().get()


@functools.cache
def _registered(app: Any) -> Watch | None:
    """Return the watch of an app, whose metrics are registered from now on."""
    try:
        runtime = attachment_of(app).runtime
        _ = runtime.settings
    except BillingError as error:
        logger.warning("billing: no metrics of the fleet: %s", error)
        return None
    watch = watch_of(runtime, app)
    prometheus_client.REGISTRY.register(FleetMetrics(watch))
    return watch
