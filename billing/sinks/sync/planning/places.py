"""Where usage goes: into the increment of its own period, by the policy for late usage, or nowhere yet. Pure.

A period that has closed takes nothing: what is sent for it is on no invoice. Usage is never carried back into a period
that ended before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from billing.core.settings import StripeLateUsage
from billing.sinks.sink import Kind
from billing.sinks.sync.planning.periods import HOUR, KnownPeriod, known_period_of, period_of


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What carries some usage: increments of a kind for [start, end), or nothing ever (`written_off`)."""

    start: datetime
    end: datetime
    #: None of what no invoice closes on: an invoice item waits for the next one.
    closes_at: datetime | None = None
    kind: Kind = Kind.METER_EVENT
    written_off: bool = False
    reason: str = ""

    @property
    def is_late(self) -> bool:
        """Whether it is for what came too late for a meter event of its own period."""
        return self.written_off or self.kind is Kind.INVOICE_ITEM


class Places:
    """The places of one customer and meter at one moment. `known` are its periods, the oldest first."""

    def __init__(self, known: Sequence[KnownPeriod], *, late_usage: StripeLateUsage, now: datetime) -> None:
        self._known, self._late_usage, self._now = known, late_usage, now

    def of(self, hour: datetime) -> Place | str:
        """Return where an hour's usage goes now; where it has to wait, why."""
        own = known_period_of(hour, self._known)
        if own is not None and own.is_open(self._now):
            return _of(own)
        following = self._following(hour)
        if own is not None and self._late_usage != "carry_forward":
            return self._late(own.start, own.end)
        if following is None:
            return self._waits(own, hour)
        if own is None and self._late_usage != "carry_forward":
            return self._late(*self._gap(hour))
        return _of(following)

    def _late(self, start: datetime, end: datetime) -> Place:
        if self._late_usage == "write_off":
            reason = "it came after its period had closed (billing_stripe_late_usage is write_off)"
            return Place(start=start, end=end, written_off=True, reason=reason)
        return Place(start=start, end=end, kind=Kind.INVOICE_ITEM)

    def _following(self, hour: datetime) -> KnownPeriod | None:
        """Return the latest open period, if it begins after an hour and has begun."""
        for period in reversed(self._known):
            if period.is_open(self._now) and period.start <= self._now:
                return period if period.usage_start > hour else None
        return None

    def _waits(self, own: KnownPeriod | None, hour: datetime) -> str:
        if not self._known:
            return "no billing period is known"
        if own is not None:
            return "its period has closed, and no later one is open"
        if hour >= self._known[-1].usage_end:
            return "its subscription has ended" if self._known[-1].ended else "its period has not begun"
        return "it is of no period, and no later one is open"

    def _gap(self, hour: datetime) -> tuple[datetime, datetime]:
        """Return the hours of no period around an hour, inside its calendar month."""
        month = period_of(hour)
        before = [period.usage_end for period in self._known if period.usage_end <= hour]
        after = [period.usage_start for period in self._known if period.usage_start > hour]
        end = min(month.end, *after) if after else month.end
        start = max(month.start, *before) if before else month.start
        return start, max(end, hour + HOUR)


def _of(period: KnownPeriod) -> Place:
    return Place(start=period.start, end=period.end, closes_at=period.closes_at)
