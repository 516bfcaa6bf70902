"""L8 at Stripe: what its summaries add up to for a period is what was sent, no unit more and none less.

An increment of which nobody knows whether Stripe has it may be there or not. Stripe's summaries follow its events after
a while ("eventually consistent"), so what was sent within the last minutes may be missing there. Such an increment is
there whole or not at all: a single unit hides behind none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from billing.reconciliation.facts import PeriodFacts
from billing.reconciliation.report import Discrepancy, Law

#: Open increments of a period of which every sum is tried (L9); with more, only their range is known.
OPEN_MAX: Final = 12


def differences(period: PeriodFacts, total: int) -> Iterator[Discrepancy]:
    """Yield the period if Stripe's total is none that what was sent can explain."""
    least, most = period.known - period.fresh, period.known + period.doubtful
    if least <= total <= most and (period.open_units is None or total - least in _sums(period.open_units)):
        return
    sent = f"{period.known:,} units were sent"
    if period.doubtful:
        sent += f", of {period.doubtful:,} more it is not known"
    if period.fresh:
        sent += f"; {period.fresh:,} of them may not be visible yet"
    found = (
        f"customer {period.customer_id}, meter {period.event_name}, period from {period.period_start:%Y-%m-%d}: "
        f"Stripe has {total:,} units, {sent}"
    )
    row = {
        "table": "stripe_increment",
        "customer_id": period.customer_id,
        "event_name": period.event_name,
        "period_start": period.period_start.isoformat(),
        "stripe": total,
        "increments": list(period.increments),
    }
    yield Discrepancy(law=Law.STRIPE.value, client_id=period.client_id, found=found, rows=(row,))


def refused(period: PeriodFacts, reason: str) -> Discrepancy:
    """Return the period as one of a customer of whom Stripe shows no total."""
    found = f"customer {period.customer_id}: {period.known:,} units were sent, and Stripe shows no total ({reason})"
    return Discrepancy(law=Law.STRIPE.value, client_id=period.client_id, found=found)


def not_visible(period: PeriodFacts, total: int) -> int:
    """Return how many units Stripe has accepted and does not show yet."""
    return max(0, period.known - total)


def _sums(open_units: tuple[int, ...]) -> set[int]:
    """Return every sum that some of these make, none of them and all of them included."""
    found = {0}
    for units in open_units:
        found |= {units + other for other in found}
    return found
