"""The consumer's metrics for Prometheus, by name.

Guarantee: no client is in a name or a label. Each scrape reads the consumer as it is at that moment; between scrapes
they cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from billing.fulfillment.pressure import Pressure
from billing.observability.metrics.layout import CONSUMER, Layout, said_by_consumer

Look = Callable[[], Pressure]

_LAYOUT: Final = Layout(said_by_consumer())
#: The numbers of each metric, in the order of their places.
_NUMBERS: Final[dict[str, Callable[[Pressure], Sequence[float]]]] = {
    "hand_events": lambda seen: (seen.in_hand,),
    "hand_limit_events": lambda seen: (seen.in_hand_max,),
    "oldest_seconds": lambda seen: (seen.oldest_seconds,),
    "write_age_seconds": lambda seen: (seen.write_seconds,),
    "database_wait_seconds": lambda seen: (seen.database_seconds,),
    "subscribed_queues": lambda seen: (seen.queues,),
    "committed_events_total": lambda seen: (seen.events,),
    "usage_rows_total": lambda seen: (seen.rows,),
    "duplicate_events_total": lambda seen: (seen.duplicates,),
    "dead_letters_total": lambda seen: (seen.dead_letters,),
    "forged_events_total": lambda seen: (seen.forged,),
    "database_failures_total": lambda seen: (seen.database_failures,),
    "batch_write_seconds": lambda seen: (*seen.writes, seen.writes_seconds),
}


class ConsumerMetrics(Collector):
    """Collects what one consumer says of itself."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Look at the consumer, once."""
        seen = self._look()
        every = (_NUMBERS[metric.name.removeprefix(CONSUMER)](seen) for metric in _LAYOUT.metrics)
        numbers = [number for of_one in every for number in of_one]
        return (_LAYOUT.family(metric, numbers) for metric in _LAYOUT.metrics)
