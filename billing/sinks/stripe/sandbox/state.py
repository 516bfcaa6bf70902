"""One stand-in's parts together, and what a control request sees of them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from billing.core.clock import Clock
from billing.sinks.stripe.sandbox.clock import SandboxClock
from billing.sinks.stripe.sandbox.faults import FaultScript
from billing.sinks.stripe.sandbox.idempotency import InFlight
from billing.sinks.stripe.sandbox.invoicing.progress import Progress
from billing.sinks.stripe.sandbox.knobs import Knobs
from billing.sinks.stripe.sandbox.requests import RequestLog
from billing.sinks.stripe.sandbox.store import Store


class State:
    """What all calls share. Knobs and time are kept in the store: a restarted stand-in has them."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self.store = Store(file)
        self.clock = SandboxClock(clock=clock, **(self.store.control("clock") or {}))
        self.knobs = Knobs().changed(self.store.control("knobs") or {})
        self.faults = FaultScript()
        self.in_flight = InFlight()
        self.requests = RequestLog()
        self.calls: collections.Counter[str] = collections.Counter()
        self.progress = Progress(self.store, lambda: self.knobs)
        self.generation = 0
        self._released = asyncio.Event()

    def turn(self, changes: dict[str, object]) -> None:
        """Turn knobs, and keep them."""
        self.knobs = self.knobs.changed(changes)
        self.store.set_control("knobs", dataclasses.asdict(self.knobs))

    def set_clock(self, given: Mapping[str, object]) -> None:
        """Move or stop the time (see `SandboxClock.set`), and keep it so."""
        self.clock.set(given)
        setting = {"offset_seconds": self.clock.offset_seconds, "frozen_at": self.clock.frozen_at}
        self.store.set_control("clock", setting)

    def catch_up(self) -> None:
        """Let the clock bring what was due by now: ended periods, final invoices."""
        self.progress.catch_up(self.clock.now())

    async def pause(self, seconds: float | None) -> None:
        """Hold a call up as a fault says (None: without end), until its time is over or `release` ends it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    def release(self) -> None:
        """Forget the faults that have not struck, and end those that hold a call up."""
        self.faults.clear()
        self._released.set()
        self._released = asyncio.Event()

    def reset(self) -> None:
        """Forget everything: objects, answers, faults, knobs, time, counts. What is held up then does nothing more."""
        self.generation += 1
        self.store.empty()
        self.release()
        self.calls.clear()
        self.requests.clear()
        self.knobs = Knobs()
        self.clock.offset_seconds, self.clock.frozen_at = 0, None

    def describe(self) -> dict[str, Any]:
        """Return counts, and the sums of what counts, per customer and event name: the lag has no say in them."""
        self.catch_up()
        totals: dict[str, dict[str, int | float]] = {}
        for customer, event_name, total in self.store.events.totals(self.clock.now()):
            totals.setdefault(customer, {})[event_name] = total
        return {
            "service": "stand-in for Stripe, not Stripe",
            "now": self.clock.now(),
            "offset_seconds": self.clock.offset_seconds,
            "frozen_at": self.clock.frozen_at,
            **self.store.count(),
            "dropped": self.store.events.count_dropped(),
            "totals": totals,
            "calls": dict(self.calls),
            "faults": self.faults.list(),
            "knobs": dataclasses.asdict(self.knobs),
        }
