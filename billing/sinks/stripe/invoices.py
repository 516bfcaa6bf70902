"""A customer's invoices as Stripe has them, line by line: where what was reported ends up. Read only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing.sinks.stripe.session import PAGE, Session


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of an invoice. `amount` is in the currency's smallest unit, `quantity` in units of the meter, if any."""

    description: str
    quantity: int
    amount: int
    period_start: datetime
    period_end: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InvoiceView:
    """An invoice with its first lines; a draft still changes."""

    invoice_id: str
    status: str
    currency: str
    total: int
    created_at: datetime
    lines: tuple[Line, ...]


def of_customer(session: Session, customer_id: str, *, most: int) -> list[InvoiceView]:
    """Return a customer's invoices, the newest first."""
    with session.reaching():
        page = session.client.v1.invoices.list({"customer": customer_id, "limit": min(most, PAGE)}, session.reads())
        return [_view(one.to_dict()) for one in itertools.islice(page.auto_paging_iter(), most)]


def _view(invoice: Mapping[str, Any]) -> InvoiceView:
    return InvoiceView(
        invoice_id=invoice["id"],
        status=invoice["status"],
        currency=invoice["currency"],
        total=invoice["total"],
        created_at=_instant(invoice["created"]),
        lines=tuple(
            Line(
                description=line.get("description") or "",
                quantity=int(line.get("quantity") or 0),
                amount=line["amount"],
                period_start=_instant(line["period"]["start"]),
                period_end=_instant(line["period"]["end"]),
            )
            for line in invoice["lines"]["data"]
        ),
    )


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
