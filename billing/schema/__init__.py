"""The tables of PostgreSQL, and how a database comes to have them. `METADATA` knows every table."""

from billing.schema import (
    allowances,
    corrections,
    dead_letters,
    operations,
    parked,
    stripe,
    stripe_books,
    tables,
    top_ups,
    watching,
)
from billing.schema.columns import METADATA

__all__ = [
    "METADATA",
    "allowances",
    "corrections",
    "dead_letters",
    "operations",
    "parked",
    "stripe",
    "stripe_books",
    "tables",
    "top_ups",
    "watching",
]
