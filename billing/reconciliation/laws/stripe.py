"""L8 at Stripe: what its summaries add up to for a period is what was sent, no unit more and none less.

Units of which nobody knows whether Stripe has them may be there or not. Stripe's summaries follow its events after a
while ("eventually consistent"), so units sent within the last minutes may be missing there: they are counted, and
only a total below that is a discrepancy.
"""

from __future__ import annotations

from collections.abc import Iterator

from billing.reconciliation.facts import PeriodFacts
from billing.reconciliation.report import Discrepancy, Law


def differences(period: PeriodFacts, total: int) -> Iterator[Discrepancy]:
    """Yield the period if Stripe's total is none that what was sent can explain."""
    least, most = period.known - period.fresh, period.known + period.doubtful
    if least <= total <= most:
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
