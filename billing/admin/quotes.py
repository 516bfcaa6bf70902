"""What a call would cost a client, and whether it would be admitted now. Changes nothing."""

from __future__ import annotations

from billing.admin.access import runtime_for
from billing.core.settings import Settings
from billing.task import quoting
from billing.task.outside import Order
from billing.task.quoting import Quote


def quote(settings: Settings, client_id: str, sku: str, quantity: int = 1) -> Quote:
    """Return the quote of a quantity of a SKU. Raises `UnknownClient`, `UnknownSku`, and `Recovering`."""
    order = Order(client_id=client_id, sku=sku, quantity=quantity, most=None, key=None)
    return quoting.quote(runtime_for(settings), order)
