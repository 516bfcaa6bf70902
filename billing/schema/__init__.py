"""The tables of PostgreSQL, and how a database comes to have them. `METADATA` knows every table."""

from billing.schema import operations, stripe, tables
from billing.schema.columns import METADATA

__all__ = ["METADATA", "operations", "stripe", "tables"]
