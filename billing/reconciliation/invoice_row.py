"""One client, meter and period as all books have it (L8). A pure value: read by `invoices.py`.

Usage is counted where it was used, in credits: log, rollups, and what became of it. What a later invoice has of it is
`carried`. Stripe is counted where it bills, in units: what was sent with a minute of the period, and what it shows.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InvoiceRow:
    """Credits of usage within [`period_start`, `period_end`), by what became of them; then Stripe's side in units.

    `planned` waits to be sent; `in_flight` is being sent, was taken, or may have been; `quarantined` is for a person
    (rejected ones too). `unplanned` is in no increment: below 0 when more was returned than used. `is_known` is False
    where no billing period is known: then it is a UTC month. `stripe` is None while nobody asked.
    """

    client_id: str
    event_name: str
    period_start: datetime
    period_end: datetime
    is_known: bool = True
    credits_per_unit: int = 1
    log: int = 0
    rollup: int = 0
    planned: int = 0
    in_flight: int = 0
    confirmed: int = 0
    quarantined: int = 0
    written_off: int = 0
    carried: int = 0
    unplanned: int = 0
    sent: int = 0
    doubtful: int = 0
    stripe: int | None = None
    #: What Stripe's total contradicts, or why it could not be asked.
    found: str = ""
    not_compared: str = ""

    @property
    def missing(self) -> int:
        """Credits of the log that are nowhere; below 0, credits that the log does not have."""
        carried = self.planned + self.in_flight + self.confirmed + self.quarantined + self.written_off + self.carried
        return self.log - carried - self.unplanned

    @property
    def unplanned_units(self) -> int:
        """Whole units that the next plan can carry."""
        return max(0, self.unplanned) // self.credits_per_unit

    @property
    def remainder(self) -> int:
        """Credits that are less than one unit of the meter: they wait for more usage."""
        return max(0, self.unplanned) % self.credits_per_unit

    @property
    def difference(self) -> int | None:
        """Stripe's units beyond what it has accepted from here; None while it was not asked."""
        return None if self.stripe is None else self.stripe - self.sent

    @property
    def differs(self) -> bool:
        """Whether the books contradict each other."""
        return bool(self.missing or self.log != self.rollup or self.found)

    @property
    def says(self) -> str:
        """What differs, in words."""
        found = [f"{self.missing:,} credits of the log are in no increment and wait for none"] if self.missing else []
        if self.log != self.rollup:
            found.append(f"the log has {self.log:,} credits, usage_rollup {self.rollup:,}")
        return "; ".join([*found, *([self.found] if self.found else [])])
