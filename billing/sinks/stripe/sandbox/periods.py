"""When billing periods end: whole intervals from an anchor. Pure.

Source: Stripe's guide to the billing cycle. In a month that lacks the anchor's day the period ends on its last day, and
the next month goes back to the anchor's.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from typing import Final

SECONDS: Final = {"day": 86_400, "week": 7 * 86_400}
MONTHS: Final = {"month": 1, "year": 12}


def boundary(anchor: int, interval: str, count: int, number: int) -> int:
    """Return the second that lies `number` periods after the anchor (before it, if negative)."""
    if interval in SECONDS:
        return anchor + number * count * SECONDS[interval]
    at = datetime.fromtimestamp(anchor, UTC)
    year, month = divmod(at.year * 12 + at.month - 1 + number * count * MONTHS[interval], 12)
    day = min(at.day, calendar.monthrange(year, month + 1)[1])
    return int(at.replace(year=year, month=month + 1, day=day).timestamp())


def next_boundary(anchor: int, interval: str, count: int, after: int) -> int:
    """Return the first boundary that lies after a second."""
    if interval in SECONDS:
        number = (after - anchor) // (count * SECONDS[interval])
    else:
        since, at = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(after, UTC)
        months = (at.year - since.year) * 12 + at.month - since.month
        number = months // (count * MONTHS[interval])
    while (found := boundary(anchor, interval, count, number)) <= after:
        number += 1
    return found
