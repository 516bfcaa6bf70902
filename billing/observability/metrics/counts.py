"""Counts what the processes of one worker bill, each in its own row of a shared memory, and sums them for a scrape.

Guarantee: nothing is lost when a child ends or is killed, and nothing is counted twice; no name, label or value says
who pays. A process that somebody forked from a worker's (it has no row) counts nothing.
"""

from __future__ import annotations

import bisect
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from billing.core.processes import is_alive
from billing.credits.values import ReserveOutcome
from billing.observability.metrics.catalogue import ALERT_KINDS, Source
from billing.observability.metrics.layout import Layout, counted
from billing.observability.metrics.memory import CHILDREN_MAX, Memory
from billing.task.observer import Called, Observer, Published
from billing.task.outcome import Outcome

_LAYOUT: Final = Layout(counted())
_BOUNDS: Final = {metric.name: metric.buckets for metric in _LAYOUT.metrics}
_SETTLE_DELAY: Final = "billing_settle_delay_seconds"
_CONFIRM: Final = "billing_publish_confirm_seconds"

_place = _LAYOUT.place
_RESERVATIONS: Final[dict[ReserveOutcome | None, int]] = {
    None: _place("billing_reservations_total", "unreachable"),
    **{each: _place("billing_reservations_total", each.value.lower()) for each in ReserveOutcome},
}
_RUNS: Final[dict[Outcome, int]] = {
    each: _place("billing_runs_total", each.value) for each in Outcome if each is not Outcome.HELD
}
_PUBLISHED: Final = {each: _place("billing_published_events_total", each.value) for each in Published}
_CALLS: Final = {each: _place("billing_webhook_calls_total", each.value) for each in Called}
_ALERTS: Final = {kind: _place("billing_alerts_total", kind) for kind in ALERT_KINDS}
_EVENTS, _CREDITS = _place("billing_usage_events_total"), _place("billing_charged_credits_total")
_OWED: Final = _place("billing_pending_charges")
_RELAYED, _REBUILT = _place("billing_relayed_events_total"), _place("billing_rebuilt_buckets_total")
_SETTLED, _EXPIRED = (_place("billing_reaped_holds_total", outcome) for outcome in ("settled", "expired"))
_REAPED_CREDITS: Final = _place("billing_reaped_credits_total")

_all: weakref.WeakSet[Counts] = weakref.WeakSet()


class Counts(Observer):
    """The counts of one worker, as this process adds to them. Threads may share it."""

    def __init__(self, memory: Memory) -> None:
        """Count for the main process."""
        self._memory = memory
        self._lock = threading.Lock()
        self._row: memoryview[float] | None = memory.row(0)
        _all.add(self)

    def enter(self, index: int) -> bool:
        """Count for the pool's child of this index, which this process is; return whether there is a row for it."""
        self.leave()
        if index >= CHILDREN_MAX:
            return False
        row = self._memory.row(index + 1)
        for place in _LAYOUT.gauges:
            # What its predecessor had, nobody has any more.
            row[place] = 0.0
        self._row = row
        return True

    def leave(self) -> None:
        """Count nothing: this process is a copy of the one whose row it is, and the lock may be held there."""
        self._lock = threading.Lock()
        self._row = None

    def reserved(self, outcome: ReserveOutcome | None) -> None:
        """See `Observer`."""
        self._add(_RESERVATIONS[outcome])

    def ended(self, outcome: Outcome) -> None:
        """See `Observer`."""
        self._add(_RUNS[outcome])

    def charged(self, credits: int, delay_seconds: float | None) -> None:
        """See `Observer`."""
        with self._lock:
            row = self._row
            if row is not None:
                row[_EVENTS] += 1
                row[_CREDITS] += credits
        if delay_seconds is not None:
            self._observe(_SETTLE_DELAY, delay_seconds)

    def published(self, result: Published, events: int) -> None:
        """See `Observer`."""
        self._add(_PUBLISHED[result], events)

    def confirmed_after(self, seconds: float) -> None:
        """See `Observer`."""
        self._observe(_CONFIRM, seconds)

    def owes(self, charges: int) -> None:
        """See `Observer`."""
        with self._lock:
            if self._row is not None:
                self._row[_OWED] = charges

    def relayed(self, events: int) -> None:
        """See `Observer`."""
        self._add(_RELAYED, events)

    def reaped(self, credits: int | None) -> None:
        """See `Observer`."""
        if credits is None:
            self._add(_EXPIRED)
        else:
            self._add(_SETTLED)
            self._add(_REAPED_CREDITS, credits)

    def rebuilt(self, buckets: int) -> None:
        """See `Observer`."""
        self._add(_REBUILT, buckets)

    def alerted(self, kind: str) -> None:
        """See `Observer`. A kind that only a newer version has is not counted."""
        if kind in _ALERTS:
            self._add(_ALERTS[kind])

    def called(self, result: Called) -> None:
        """See `Observer`."""
        self._add(_CALLS[result])

    def _add(self, place: int, amount: float = 1) -> None:
        with self._lock:
            row = self._row
            if row is not None:
                row[place] += amount

    def _observe(self, name: str, seconds: float) -> None:
        bounds, at = _BOUNDS[name], _place(name)
        bucket = at + bisect.bisect_left(bounds, seconds)
        with self._lock:
            row = self._row
            if row is not None:
                row[bucket] += 1
                row[at + len(bounds) + 1] += seconds


class CountsCollector(Collector):
    """Collects the counts of all processes of a worker, for the sources that it is."""

    def __init__(self, memory: Memory, *sources: Source) -> None:
        self._memory = memory
        self._metrics = [metric for metric in _LAYOUT.metrics if metric.source in sources]

    def collect(self) -> Iterator[Family]:
        """Sum over the rows, as they are now."""
        numbers = _sums(self._memory)
        for metric in self._metrics:
            yield _LAYOUT.family(metric, numbers)


def new_memory() -> Memory:
    """Return a memory for the counted metrics, all 0."""
    return Memory(_LAYOUT.width)


def _sums(memory: Memory) -> list[float]:
    gauges = _LAYOUT.gauges
    rows = []
    for pid, numbers in memory.rows():
        row = list(numbers)
        for place in gauges:
            if row[place] and not is_alive(pid):
                row[place] = 0.0
        rows.append(row)
    return [sum(column) for column in zip(*rows, strict=True)] or [0.0] * _LAYOUT.width


def _leave_all() -> None:
    for counts in list(_all):
        counts.leave()


os.register_at_fork(after_in_child=_leave_all)
