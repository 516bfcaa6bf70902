"""Where Stripe's totals come from."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Totals(Protocol):
    """Where a customer's total comes from: Stripe's gateway."""

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return the units that Stripe shows for a customer from one minute up to another."""
        ...
