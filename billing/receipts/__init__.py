"""What a client paid for, line by line, from the usage history: as a table, JSON, CSV or HTML."""

from __future__ import annotations

from billing.receipts.writing import Receipt, write_csv, write_html, write_json

__all__ = ["Receipt", "write_csv", "write_html", "write_json"]
