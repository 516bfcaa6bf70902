"""Where each number of the counted metrics has its place in a row. Pure.

Every series has one from the start, since the catalogue has all values of the labels: rates work from the first event.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import core
from prometheus_client.metrics_core import Metric as Family

from billing.observability.metrics.catalogue import CATALOGUE, Kind, Metric, Source

#: The fulfillment worker's metrics that its consumer says itself, at each scrape.
CONSUMER: Final = "billing_consumer_"


def counted() -> tuple[Metric, ...]:
    """Return the metrics whose numbers are counted where something happens."""
    return tuple(
        metric for metric in CATALOGUE if metric.source is not Source.FLEET and not metric.name.startswith(CONSUMER)
    )


def said_by_consumer() -> tuple[Metric, ...]:
    """Return those that a consumer says of itself."""
    return tuple(metric for metric in CATALOGUE if metric.name.startswith(CONSUMER))


class Layout:
    """The places of some metrics. A histogram has one for each bound, one beyond, and one for the sum."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = tuple(metrics)
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        self.width = 0
        for metric in self.metrics:
            for values in _series(metric):
                self._places[metric.name, values] = self.width
                self.width += len(metric.buckets) + 2 if metric.kind is Kind.HISTOGRAM else 1

    def place(self, name: str, *values: str) -> int:
        """Return the place of a series, by the values of its labels; of a histogram its first one."""
        return self._places[name, values]

    @property
    def gauges(self) -> Sequence[int]:
        """The places whose numbers die with their process."""
        return [
            self.place(metric.name, *values)
            for metric in self.metrics
            if metric.kind is Kind.GAUGE
            for values in _series(metric)
        ]

    def family(self, metric: Metric, numbers: Sequence[float]) -> Family:
        """Return what a scrape shows of a metric, all its series with it."""
        if metric.kind is Kind.HISTOGRAM:
            at, bounds = self.place(metric.name), [*map(str, metric.buckets), "+Inf"]
            counts = itertools.accumulate(numbers[at : at + len(bounds)])
            buckets = list(zip(bounds, counts, strict=True))
            total = numbers[at + len(bounds)]
            return core.HistogramMetricFamily(metric.name, metric.says, buckets=buckets, sum_value=total)
        made = core.CounterMetricFamily if metric.kind is Kind.COUNTER else core.GaugeMetricFamily
        family = made(metric.name, metric.says, labels=[name for name, _ in metric.labels])
        for values in _series(metric):
            family.add_metric(values, numbers[self.place(metric.name, *values)])
        return family


def _series(metric: Metric) -> Iterable[tuple[str, ...]]:
    return itertools.product(*(values for _, values in metric.labels))
