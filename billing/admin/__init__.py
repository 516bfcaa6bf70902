"""What the commands do, from Python: clients, grants, prices, balances. Each call is idempotent by its key.

PostgreSQL is written first and Redis second; what dies between the two is finished by the fulfillment worker.
"""

from __future__ import annotations

from billing.admin.access import close
from billing.admin.clients import ClientView, add_client, client, clients
from billing.admin.grants import grant
from billing.admin.prices import prices, set_price
from billing.admin.reading import all_usage, balance, usage, usage_totals
from billing.admin.receipts import open_receipt, receipt

__all__ = [
    "ClientView",
    "add_client",
    "all_usage",
    "balance",
    "client",
    "clients",
    "close",
    "grant",
    "open_receipt",
    "prices",
    "receipt",
    "set_price",
    "usage",
    "usage_totals",
]
