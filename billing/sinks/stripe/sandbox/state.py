"""One stand-in's parts together, and what a control request sees of them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from billing.core.clock import Clock
from billing.sinks.stripe.sandbox.clock import SandboxClock
from billing.sinks.stripe.sandbox.events import amount
from billing.sinks.stripe.sandbox.faults import FaultScript
from billing.sinks.stripe.sandbox.idempotency import InFlight
from billing.sinks.stripe.sandbox.knobs import Knobs
from billing.sinks.stripe.sandbox.store import Store


class State:
    """What all calls share. Knobs and time are kept in the store: a restarted stand-in has them."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self.store = Store(file)
        self.clock = SandboxClock(clock=clock, **(self.store.control("clock") or {}))
        self.knobs = Knobs().changed(self.store.control("knobs") or {})
        self.faults = FaultScript()
        self.in_flight = InFlight()
        self.calls: collections.Counter[str] = collections.Counter()

    def turn(self, changes: dict[str, object]) -> None:
        """Turn knobs, and keep them."""
        self.knobs = self.knobs.changed(changes)
        self.store.set_control("knobs", dataclasses.asdict(self.knobs))

    def set_clock(self, given: Mapping[str, object]) -> None:
        """Move or stop the time (see `SandboxClock.set`), and keep it so."""
        self.clock.set(given)
        setting = {"offset_seconds": self.clock.offset_seconds, "frozen_at": self.clock.frozen_at}
        self.store.set_control("clock", setting)

    def reset(self) -> None:
        """Forget everything: objects, answers, faults, knobs, time, counts."""
        self.store.empty()
        self.faults.clear()
        self.calls.clear()
        self.knobs = Knobs()
        self.clock.offset_seconds, self.clock.frozen_at = 0, None

    def describe(self) -> dict[str, Any]:
        """Return counts, and totals of what would be billed, per customer and event name: lag has no say in them."""
        totals: dict[str, dict[str, Decimal]] = {}
        dropped: collections.Counter[str] = collections.Counter()
        for event in self.store.events():
            if event.dropped is not None:
                dropped[event.dropped] += 1
                continue
            of_customer = totals.setdefault(event.customer, {})
            of_customer[event.event_name] = of_customer.get(event.event_name, Decimal(0)) + amount(event)
        return {
            "service": "stand-in for Stripe, not Stripe",
            "now": self.clock.now(),
            "offset_seconds": self.clock.offset_seconds,
            "frozen_at": self.clock.frozen_at,
            **self.store.count(),
            "dropped": dict(dropped),
            "totals": {
                customer: {name: int(total) if total == int(total) else float(total) for name, total in names.items()}
                for customer, names in totals.items()
            },
            "calls": dict(self.calls),
            "faults": self.faults.list(),
            "knobs": dataclasses.asdict(self.knobs),
        }
