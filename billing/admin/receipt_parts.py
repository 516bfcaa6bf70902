"""Which increment carries which line: both are intervals of the running total of one rollup row. Pure.

The lines of a rollup row (client, SKU, hour) in the order in which they were recorded each take its running total from
one value to the next; an increment's part says from which running total to which it carries the row. Where the two
overlap, the increment carries the line. What corrections return is a running total of its own, from 0 down, and its
overlap counts as negative: the lines of a part always add up to that part.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable
from datetime import datetime

from billing.admin.receipt_line import Reported


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The part of a rollup row that an increment carries: from a running total (exclusive) to another."""

    sku: str
    hour: datetime
    credits_from: int
    credits_to: int
    increment_id: int
    state: str
    billed: str = ""

    @property
    def low(self) -> int:
        """The end that is nearer to minus infinity."""
        return min(self.credits_from, self.credits_to)

    @property
    def high(self) -> int:
        """The other end."""
        return max(self.credits_from, self.credits_to)


class Parts:
    """The parts of some rollup rows of one client. The parts of a row do not overlap (L8)."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._by_row: dict[tuple[str, datetime], list[Part]] = {}
        for part in sorted(parts, key=lambda part: part.high):
            self._by_row.setdefault((part.sku, part.hour), []).append(part)

    def carrying(self, sku: str, hour: datetime, credits_: int, total: int) -> tuple[Reported, ...]:
        """Return who carries a line of `credits_` that took its running total of the row to `total`."""
        parts = self._by_row.get((sku, hour))
        if not parts or not credits_:
            return ()
        low, high = sorted((total - credits_, total))
        found = []
        for part in parts[bisect.bisect_right(parts, low, key=lambda part: part.high) :]:
            if part.low >= high:
                break
            overlap = min(high, part.high) - max(low, part.low)
            signed = overlap if credits_ > 0 else -overlap
            carried = Reported(increment_id=part.increment_id, state=part.state, credits=signed, billed=part.billed)
            found.append(carried)
        # In the order in which they were planned: what is returned has its running total fall.
        return tuple(found if credits_ > 0 else reversed(found))
