"""The table of allowances: grants that repeat by the calendar."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from billing.schema.columns import METADATA, NOW, amount, instant, words

grant_schedule: Final = Table(
    "grant_schedule",
    METADATA,
    Column("schedule_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    words("key"),
    amount("credits"),
    words("kind", server_default="allowance"),
    Column("priority", Integer, nullable=False, server_default=text("100")),
    Column("skus", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    words("every"),
    Column(
        "rollover",
        Integer,
        comment="for how many further periods what is left of a grant stays usable; null: for ever",
    ),
    instant("starts_at"),
    instant("ends_at", nullable=True, comment="no period begins then or later"),
    words("state", server_default="open"),
    Column("end_key", Text, comment="the key of the call that ended it"),
    instant("ended_at", nullable=True),
    Column("following", Integer, nullable=False, comment="the number of the next period to be granted"),
    instant("next_at", comment="when to look at it next"),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    words("reason", server_default="", comment="why the grant that is due could not be written, or why it ended"),
    instant("created_at", default=NOW),
    UniqueConstraint("client_id", "key"),
    CheckConstraint("credits > 0", name="credits"),
    CheckConstraint("every IN ('day', 'week', 'month')", name="every"),
    CheckConstraint("state IN ('open', 'ended')", name="state"),
    Index("grant_schedule_due_idx", "next_at", postgresql_where=text("state = 'open'")),
)
