"""What a receipt's lines add up to: per SKU, per day, per grant, per increment, and in all. Pure.

It is counted from the very lines that are shown, so that the subtotals cannot say anything else than the lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date

from billing.admin.receipt_line import ReceiptLine
from billing.events.usage_event import DRY_RUN


@dataclasses.dataclass(kw_only=True, slots=True)
class Sum:
    """How many lines there are of something, and how many units and credits they come to."""

    rows: int = 0
    quantity: int = 0
    credits: int = 0

    def add(self, quantity: int, credits_: int) -> None:
        """Count one line."""
        self.rows += 1
        self.quantity += quantity
        self.credits += credits_


@dataclasses.dataclass(kw_only=True, slots=True)
class SkuSum(Sum):
    """The lines of one SKU."""

    sku: str
    unit: str


@dataclasses.dataclass(kw_only=True, slots=True)
class DaySum(Sum):
    """The lines of one UTC day. Their quantity is of whatever units they have."""

    day: date


@dataclasses.dataclass(kw_only=True, slots=True)
class GrantSum(Sum):
    """The lines that one grant paid, in part or whole, with their quantity; grant 0 is debt."""

    grant: int


@dataclasses.dataclass(kw_only=True, slots=True)
class IncrementSum(Sum):
    """The lines that one increment carries, in part or whole, with their quantity."""

    increment_id: int
    state: str


@dataclasses.dataclass(kw_only=True, slots=True)
class Summary:
    """All subtotals, the days in their order.

    `unreported` counts the lines with credits that no increment carries yet; `corrections` those that correct another
    line, `dry_runs` those that were not charged: both are in all other sums, too.
    """

    total: Sum
    by_sku: Sequence[SkuSum]
    by_day: Sequence[DaySum]
    by_grant: Sequence[GrantSum]
    by_increment: Sequence[IncrementSum]
    unreported: Sum
    corrections: Sum
    dry_runs: Sum


class Tally:
    """Counts lines as they pass."""

    def __init__(self) -> None:
        self._total, self._unreported, self._corrections, self._dry_runs = Sum(), Sum(), Sum(), Sum()
        self._days: dict[date, DaySum] = {}
        self._skus: dict[str, SkuSum] = {}
        self._grants: dict[int, GrantSum] = {}
        self._increments: dict[int, IncrementSum] = {}

    def counting(self, lines: Iterable[ReceiptLine]) -> Iterator[ReceiptLine]:
        """Yield lines, and count each."""
        for line in lines:
            self.add(line)
            yield line

    def add(self, line: ReceiptLine) -> None:
        """Count one line."""
        self._total.add(line.quantity, line.credits)
        if line.sku not in self._skus:
            self._skus[line.sku] = SkuSum(sku=line.sku, unit=line.unit)
        self._skus[line.sku].add(line.quantity, line.credits)
        day = line.occurred_at.astimezone(UTC).date()
        if day not in self._days:
            self._days[day] = DaySum(day=day)
        self._days[day].add(line.quantity, line.credits)
        if line.corrects is not None:
            self._corrections.add(line.quantity, line.credits)
        if line.mode == DRY_RUN:
            self._dry_runs.add(line.quantity, line.credits)
        for grant, credits_ in line.grants.items():
            self._grants.setdefault(grant, GrantSum(grant=grant)).add(line.quantity, credits_)
        for part in line.reported:
            made = IncrementSum(increment_id=part.increment_id, state=part.state)
            self._increments.setdefault(part.increment_id, made).add(line.quantity, part.credits)
        if line.unreported:
            self._unreported.add(line.quantity, line.unreported)

    def summary(self) -> Summary:
        """Return what was counted so far."""
        return Summary(
            total=self._total,
            by_sku=[self._skus[sku] for sku in sorted(self._skus)],
            by_day=[self._days[day] for day in sorted(self._days)],
            # Debt last: it is what no grant paid.
            by_grant=[self._grants[grant] for grant in sorted(self._grants, key=lambda grant: (not grant, grant))],
            by_increment=[self._increments[number] for number in sorted(self._increments)],
            unreported=self._unreported,
            corrections=self._corrections,
            dry_runs=self._dry_runs,
        )
