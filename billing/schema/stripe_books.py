"""The table of the place from which Stripe is told: a restored copy of it is noticed (`sinks.sync.restored`)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Table, text

from billing.schema.columns import METADATA, instant, words

stripe_books: Final = Table(
    "stripe_books",
    METADATA,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "relation", BigInteger, nullable=False, comment="the number of this table, which a restore from a dump changes"
    ),
    words(
        "server",
        server_default="",
        comment="the system identifier of the server; empty where it could not be read",
    ),
    instant("doubted_at", nullable=True, comment="when these were first seen not to be the ones; null: they are"),
    instant("adopted_at", nullable=True, comment="when somebody last took them for the ones, after a restore"),
    words("reason", server_default=""),
    CheckConstraint("one", name="one"),
)
