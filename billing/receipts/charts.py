"""The bars of a receipt's charts: credits over time, and per SKU. Pure: whole numbers in, places on a grid out.

A chart says nothing that its table does not say in numbers: it is drawn from the same sums, and a bar that is not
nothing can always be seen. What was taken back by corrections stands below the line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from billing.admin.receipt_line import ReceiptHead
from billing.admin.spans import INSTANT
from billing.receipts.summary import Summary

#: The height of a chart, and the length of the longest bar of a list, on its own grid.
SIZE: Final = 1_000
#: L9: bars of days, then of months at most; a longer time has bars of years, of which a receipt has 1,000 at most.
BARS_MAX: Final = 93
#: L9: SKUs with a bar of their own at most.
SKUS_MAX: Final = 12
#: How long a bar of little is at least, so that it is seen.
_SEEN: Final = 15
_DAY: Final = timedelta(days=1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A bar: which one it is, what of, its credits, where it begins from the top (in a list: 0), how long it is."""

    place: int
    name: str
    credits: int
    top: int
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TimeChart:
    """Credits per `unit` (day, month, year), one bar each, and where the line of 0 is from the top."""

    unit: str
    bars: Sequence[Bar]
    zero: int

    @property
    def most(self) -> Bar:
        """The bar of the most credits."""
        return max(self.bars, key=lambda bar: bar.credits)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SkuChart:
    """Credits of the SKUs that cost most, most first, and what all others come to."""

    bars: Sequence[Bar]
    others: int
    others_credits: int


def over_time(head: ReceiptHead, summary: Summary) -> TimeChart | None:
    """Return the bars of a receipt's time; None where nothing cost anything."""
    if not any(counted.credits for counted in summary.by_day):
        return None
    first, last = head.start.date(), (head.end - INSTANT).date()
    if (last - first).days >= BARS_MAX:
        first, last = summary.by_day[0].day, summary.by_day[-1].day
    unit, names = _names(first, last)
    sums = dict.fromkeys(names, 0)
    for counted in summary.by_day:
        sums[_name(counted.day, unit)] += counted.credits
    return time_chart(unit, sums)


def time_chart(unit: str, sums: Mapping[str, int]) -> TimeChart | None:
    """Return one bar for each name, in their order; None where nothing cost anything."""
    if not any(sums.values()):
        return None  # each bar's charges were all returned
    highest, lowest = max(0, *sums.values()), min(0, *sums.values())
    range_ = highest - lowest
    zero = highest * SIZE // range_

    bars = []
    for place, (name, credits_) in enumerate(sums.items()):
        size = max(_SEEN, abs(credits_) * SIZE // range_) if credits_ else 0
        top = max(0, zero - size) if credits_ >= 0 else min(zero, SIZE - size)
        bars.append(Bar(place=place, name=name, credits=credits_, top=top, size=size))
    return TimeChart(unit=unit, zero=zero, bars=bars)


def by_sku(summary: Summary) -> SkuChart | None:
    """Return the bars of a receipt's SKUs; None where nothing cost anything."""
    ordered = sorted(summary.by_sku, key=lambda counted: (-counted.credits, counted.sku))
    longest = max((abs(counted.credits) for counted in ordered), default=0)
    if not longest:
        return None
    bars = [
        Bar(
            place=place,
            name=counted.sku,
            credits=counted.credits,
            top=0,
            size=max(_SEEN, abs(counted.credits) * SIZE // longest) if counted.credits else 0,
        )
        for place, counted in enumerate(ordered[:SKUS_MAX])
    ]
    rest = ordered[SKUS_MAX:]
    return SkuChart(bars=bars, others=len(rest), others_credits=sum(counted.credits for counted in rest))


def _names(first: date, last: date) -> tuple[str, list[str]]:
    """Return what a bar is of, and the names of all from the first day to the last."""
    days = (last - first).days + 1
    if days <= BARS_MAX:
        return "day", [_name(first + number * _DAY, "day") for number in range(days)]
    months = 12 * (last.year - first.year) + last.month - first.month + 1
    if months <= BARS_MAX:
        begins = (divmod(first.month - 1 + number, 12) for number in range(months))
        return "month", [_name(date(first.year + years, month + 1, 1), "month") for years, month in begins]
    return "year", [str(year) for year in range(first.year, last.year + 1)]


def _name(day: date, unit: str) -> str:
    match unit:
        case "day":
            return f"{day.day} {day:%B %Y}"
        case "month":
            return f"{day:%B %Y}"
        case _:
            return str(day.year)
