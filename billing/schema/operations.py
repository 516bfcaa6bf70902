"""The tables of operations: reconciliation's runs and findings, alerts and their webhooks, recorded workloads."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
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
from sqlalchemy.dialects.postgresql import JSONB

from billing.schema.columns import METADATA, NOW, amount, instant, words

reconciliation_run: Final = Table(
    "reconciliation_run",
    METADATA,
    Column("run_id", BigInteger, Identity(always=True), primary_key=True),
    instant("started_at", default=NOW),
    instant("finished_at", nullable=True, comment="null: it died on the way"),
    Column("clients", Integer, nullable=False, server_default=text("0")),
    Column(
        "laws", JSONB, nullable=False, server_default=text("'[]'::jsonb"), comment="each law, and what was compared"
    ),
    Column("held", Boolean, comment="whether every law held; null while it runs"),
    Column("whole", Boolean, nullable=False, server_default=text("true"), comment="false: only of clients by name"),
    Column("resume_after", Text, comment="it ran out of time after this client; null: it reached all"),
)

discrepancy: Final = Table(
    "discrepancy",
    METADATA,
    Column("discrepancy_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("reconciliation_run.run_id"), nullable=False),
    words("law"),
    Column("client_id", Text),
    Column("grant_id", BigInteger),
    words("found"),
    Column("rows", JSONB, nullable=False, server_default=text("'[]'::jsonb"), comment="the rows that differ, bounded"),
    Index(None, "run_id"),
)

webhook: Final = Table(
    "webhook",
    METADATA,
    Column("client_id", Text, ForeignKey("client.client_id"), primary_key=True),
    words("url"),
    words("secret", comment="signs what is sent (Standard Webhooks); shown once, when it is made"),
    instant("created_at", default=NOW),
)

alert: Final = Table(
    "alert",
    METADATA,
    Column("alert_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, nullable=False),
    words("kind"),
    Column("threshold_percent", Integer, nullable=False),
    amount("available"),
    amount("granted"),
    words("source", comment="the entry of the shard's stream that it came from"),
    instant("occurred_at"),
    instant("recorded_at", default=NOW),
    instant("announced_at", nullable=True, comment="when its signal was sent"),
    words("delivery", server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    instant("next_attempt_at", nullable=True),
    instant("delivered_at", nullable=True),
    words("reason", server_default=""),
    UniqueConstraint("source"),
    CheckConstraint("kind IN ('low_balance', 'exhausted')", name="kind"),
    CheckConstraint("delivery IN ('pending', 'delivered', 'failed', 'none')", name="delivery"),
    Index("alert_pending_idx", "next_attempt_at", postgresql_where=text("delivery = 'pending'")),
    Index("alert_unannounced_idx", "alert_id", postgresql_where=text("announced_at IS NULL")),
    Index(None, "client_id", "alert_id"),
)

recorded_workload: Final = Table(
    "recorded_workload",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the file and of what its replay was told"),
    words("name"),
    instant("started_at", comment="the time bits of its run ids, so that a second start makes the same"),
    instant("finished_at", nullable=True),
    UniqueConstraint("started_at"),
)
