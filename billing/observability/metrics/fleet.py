"""The metrics of the whole fleet, from its latest reading: what did not answer is absent, never a false 0.

Each scrape tells what was read last, and how long ago; it asks no server and waits for none. Every name, label and
value is the catalogue's. An age of something that never was is +Inf, so that an alert on it does not wait for ever.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from billing.observability.metrics.catalogue import (
    CATALOGUE,
    CHECKED,
    OPEN_STATES,
    PARTS,
    SERVERS,
    Source,
)
from billing.observability.overview.values import FleetState, IncrementsState, LawState
from billing.observability.overview.watch import Watch

#: The values of a metric's labels, and its value.
Sample = tuple[tuple[str, ...], float]

_VERDICTS: Final = ("ok", "warn", "fail")
_PROCESSES: Final = ("beat", "consumer")


class FleetMetrics(Collector):
    """Collects what a watch has read last. It begins the watch; until its first reading there is nothing to tell."""

    def __init__(self, watch: Watch, *, wait_seconds: float = 0.0) -> None:
        """`wait_seconds`: how long a scrape waits for the first reading of all."""
        self._watch, self._wait_seconds = watch, wait_seconds

    def describe(self) -> Iterable[Metric]:
        """Name the metrics without reading anything."""
        return [GaugeMetricFamily(metric.name, metric.says) for metric in CATALOGUE if metric.source is Source.FLEET]

    def collect(self) -> Iterator[Metric]:
        """Tell the latest reading."""
        state = self._watch.latest(wait_seconds=self._wait_seconds)
        age = self._watch.age_seconds
        for metric in CATALOGUE:
            if metric.source is not Source.FLEET:
                continue
            family = GaugeMetricFamily(metric.name, metric.says, labels=[name for name, _ in metric.labels])
            if state is not None and age is not None:
                for labels, value in _samples(metric.name, state, age):
                    family.add_metric(labels, value)
            yield family


def _samples(name: str, state: FleetState, age_seconds: float) -> Iterable[Sample]:
    if name == "billing_read_age_seconds":
        return _one(age_seconds)
    return _SAMPLES[name.removeprefix("billing_")](state)


def _one(value: float | None) -> Iterable[Sample]:
    return () if value is None else (((), value),)


def _age(state: FleetState, at: datetime | None) -> float:
    """Return how long ago something was when the fleet was read."""
    return math.inf if at is None else max(0.0, (state.taken_at - at).total_seconds())


def _since(state: FleetState, at: datetime | None) -> float:
    """Return the same of what waits; 0: nothing does."""
    return 0.0 if at is None else _age(state, at)


def _servers(state: FleetState) -> Iterable[Sample]:
    return [((name,), float(state.servers[name])) for name in SERVERS if name in state.servers]


def _findings(state: FleetState) -> Iterable[Sample]:
    counts = collections.Counter((finding.part, finding.verdict.value) for finding in state.findings)
    return [((part, verdict), counts[part, verdict]) for part in PARTS for verdict in _VERDICTS]


def _queues(state: FleetState) -> Iterable[Sample]:
    return [((str(queue.number),), queue.events) for queue in state.queues or ()]


def _consumers(state: FleetState) -> Iterable[Sample]:
    queues = state.queues or ()
    return [((str(queue.number),), queue.consumers) for queue in queues if queue.consumers is not None]


def _increments(state: FleetState) -> Iterable[Sample]:
    return [((one.state,), one.count) for one in _all_increments(state)]


def _increment_ages(state: FleetState) -> Iterable[Sample]:
    return [((one.state,), _since(state, one.oldest_at)) for one in _all_increments(state) if one.state in OPEN_STATES]


def _all_increments(state: FleetState) -> Iterable[IncrementsState]:
    return state.increments or ()


def _laws(state: FleetState) -> Iterable[LawState]:
    return [law for law in state.laws or () if law.law in CHECKED]


def _seen(state: FleetState) -> Iterable[Sample]:
    if state.seen is None:
        return ()
    last = {process: [one.seen_at for one in state.seen if one.process == process] for process in _PROCESSES}
    return [((process,), _age(state, max(times, default=None))) for process, times in last.items()]


_SAMPLES: Final[dict[str, Callable[[FleetState], Iterable[Sample]]]] = {
    "server_up": _servers,
    "findings": _findings,
    "holds": lambda state: _one(None if state.holds is None else state.holds.count),
    "held_credits": lambda state: _one(state.holds.credits if state.holds and state.holds.whole else None),
    "hold_overdue_seconds": lambda state: _one(None if state.holds is None else state.holds.overdue_seconds),
    "recovering_shards": lambda state: _one(state.recovering_shards),
    "outbox_events": lambda state: _one(None if state.outbox is None else state.outbox.events),
    "outbox_oldest_seconds": lambda state: _one(None if state.outbox is None else state.outbox.oldest_seconds),
    "queue_events": _queues,
    "queue_consumers": _consumers,
    "dead_letters": lambda state: _one(state.dead_letters),
    "parked_tasks": lambda state: _one(state.parked_tasks),
    "parked_oldest_seconds": lambda state: _one(
        None if state.parked_tasks is None else _since(state, state.parked_oldest_at)
    ),
    "unplanned_credits": lambda state: _one(state.unplanned_credits),
    "rollup_to_stripe_seconds": lambda state: _one(
        None if state.unplanned_credits is None else _since(state, state.unplanned_oldest_at)
    ),
    "increments": _increments,
    "increment_oldest_seconds": _increment_ages,
    "law_violations": lambda state: [((law.law,), law.violations) for law in _laws(state)],
    "law_check_age_seconds": lambda state: [((law.law,), _age(state, law.checked_at)) for law in _laws(state)],
    "seen_age_seconds": _seen,
    "log_age_seconds": lambda state: _one(_age(state, state.log_last_at) if state.log_read else None),
    "months_ahead": lambda state: _one(state.months_ahead),
    "webhook_deliveries": lambda state: _one(state.deliveries),
}
