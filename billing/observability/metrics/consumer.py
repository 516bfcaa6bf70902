"""The consumer's metrics for Prometheus, by name.

Guarantee: no client is in a name or a label. Each scrape reads the consumer as it is at that moment; between scrapes
they cost nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from billing.fulfillment.pressure import WRITE_SECONDS_BOUNDS, Pressure

Look = Callable[[], Pressure]


class ConsumerMetrics(Collector):
    """Collects what one consumer says of itself."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Look at the consumer, once."""
        seen = self._look()
        for name, meaning, value in (
            ("hand_events", "Usage events received from the broker and not acked yet", seen.in_hand),
            ("hand_limit_events", "Usage events that the broker sends at most before some are acked", seen.in_hand_max),
            ("oldest_seconds", "Age of the oldest usage event in hand; 0: there is none", seen.oldest_seconds),
            ("write_age_seconds", "Age of the write that is under way; 0: none is", seen.write_seconds),
            (
                "database_wait_seconds",
                "Time for which PostgreSQL has taken no batch; 0: it does",
                seen.database_seconds,
            ),
            ("subscribed_queues", "Usage queues that the consumer is subscribed to", seen.queues),
        ):
            yield GaugeMetricFamily(f"billing_consumer_{name}", meaning, value=value)
        for name, meaning, value in (
            ("committed_events", "Usage events whose batch is committed, whatever became of them", seen.events),
            ("usage_rows", "Rows inserted into the usage history", seen.rows),
            ("duplicate_events", "Usage events whose run was in the usage history", seen.duplicates),
            ("dead_letters", "Usage events that were refused and kept as dead letters", seen.dead_letters),
            (
                "database_failures",
                "Writes that PostgreSQL did not take and that were tried again",
                seen.database_failures,
            ),
        ):
            yield CounterMetricFamily(f"billing_consumer_{name}", meaning, value=value)
        bounds = [*map(str, WRITE_SECONDS_BOUNDS), "+Inf"]
        yield HistogramMetricFamily(
            "billing_consumer_batch_write_seconds",
            "Time that a batch took from its first try to its commit",
            buckets=list(zip(bounds, itertools.accumulate(seen.writes), strict=True)),
            sum_value=seen.writes_seconds,
        )
