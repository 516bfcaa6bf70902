"""The report to Stripe, compared per client, meter and period."""

from __future__ import annotations

from collections.abc import Sequence

from billing.admin.access import runtime_for
from billing.core.settings import Settings
from billing.reconciliation.invoices import Invoices, read_invoices


def sync_reconcile(
    settings: Settings, client_ids: Sequence[str] | None = None, *, stripe: bool | None = None, every: bool = False
) -> Invoices:
    """Return what became of every credit of some clients (None: of all), period by period, beside Stripe's totals.

    Stripe is asked of clients that are named, of all only with `stripe=True`: it is one call per client and period.
    Kept are the rows that differ, or `every` one, up to a bound. Raises `UnknownClient` and `Unreachable`.
    """
    named = client_ids is not None
    asked = named if stripe is None else stripe
    return read_invoices(runtime_for(settings), client_ids, stripe=asked, every=every or named)
