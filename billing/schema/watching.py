"""The tables of what watches: who was seen when, and how each law's last check came out."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from billing.schema.columns import METADATA, instant, words

last_seen: Final = Table(
    "last_seen",
    METADATA,
    Column("process", words("process").type, primary_key=True),
    Column("name", words("name").type, primary_key=True, comment="consumer: its worker's name; beat: one row for all"),
    instant("started_at"),
    instant("seen_at"),
    Column(
        "details",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="consumer: what it had in hand when it was seen",
    ),
    CheckConstraint("process IN ('beat', 'consumer')", name="process"),
)

law_check: Final = Table(
    "law_check",
    METADATA,
    Column("law", words("law").type, primary_key=True),
    instant("checked_at"),
    Column("examined", BigInteger, nullable=False, comment="how many things the last slice looked at"),
    Column("violations", BigInteger, nullable=False),
    words("found", server_default=""),
    words("resume_after", server_default="", comment="where the next slice begins; empty: at the front"),
    Column(
        "remembered",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="what the next check needs of this one, as how many rows each month had",
    ),
)
