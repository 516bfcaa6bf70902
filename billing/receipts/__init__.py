"""What a client paid for, line by line, from the usage history: as a table, JSON, CSV or HTML."""

from __future__ import annotations

from billing.receipts.export import Export, write_export
from billing.receipts.writing import Receipt, write_csv, write_html, write_json

__all__ = ["Export", "Receipt", "write_csv", "write_export", "write_html", "write_json"]
