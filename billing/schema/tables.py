"""The tables, as SQLAlchemy sees them. The migrations make them; a test holds the two equal.

Amounts are `bigint`, times `timestamptz`. `price`, `ledger_entry` and `usage_history` are append-only (L7): triggers
refuse UPDATE, DELETE and TRUNCATE for every role, so nothing here or elsewhere may try.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

#: PostgreSQL's own way of naming, so that a constraint made by hand is named like one made here.
_NAMING: Final = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
METADATA: Final = MetaData(naming_convention=_NAMING)

#: Tables that nobody may change, only add to (L7).
APPEND_ONLY: Final = ("price", "ledger_entry", "usage_history")

_NOW: Final = text("now()")


def _amount(name: str, **options: Any) -> Column[int]:
    return Column(name, BigInteger, nullable=False, **options)


def _time(name: str, *, nullable: bool = False, default: Any = None, comment: str | None = None) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default, comment=comment)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


client: Final = Table(
    "client",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("shard", Integer, nullable=False),
    Column("epoch", Integer, nullable=False, server_default=text("1")),
    _text("state", server_default="active"),
    _amount("overdraft_limit", server_default=text("0")),
    _time("created_at", default=_NOW),
    CheckConstraint("epoch >= 1", name="epoch"),
    CheckConstraint("overdraft_limit >= 0", name="overdraft_limit"),
    Index(None, "shard"),
)

credit_grant: Final = Table(
    "credit_grant",
    METADATA,
    Column("grant_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    _text("kind", server_default="paid"),
    _amount("credits"),
    Column("priority", Integer, nullable=False, server_default=text("100")),
    _time("expires_at", nullable=True),
    Column("key", Text),
    _time("created_at", default=_NOW),
    _time("applied_at", nullable=True, comment="when the bucket in Redis got it; null while it has not"),
    UniqueConstraint("client_id", "key"),
    CheckConstraint("credits > 0", name="credits"),
    Index("credit_grant_unapplied_idx", "grant_id", postgresql_where=text("applied_at IS NULL")),
)

ledger_entry: Final = Table(
    "ledger_entry",
    METADATA,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    Column("grant_id", BigInteger, ForeignKey("credit_grant.grant_id")),
    _text("kind"),
    _amount("credits"),
    _text("reason", server_default=""),
    _time("created_at", default=_NOW),
    Index(None, "client_id", "entry_id"),
)

price: Final = Table(
    "price",
    METADATA,
    Column("sku", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    _amount("credits_per_unit"),
    _text("unit"),
    _time("effective_at"),
    _time("created_at", default=_NOW),
    UniqueConstraint("version"),
    UniqueConstraint("sku", "effective_at"),
    CheckConstraint("credits_per_unit >= 0", name="credits_per_unit"),
)

usage_history: Final = Table(
    "usage_history",
    METADATA,
    Column("run_id", Uuid, primary_key=True),
    Column("line", SmallInteger, primary_key=True),
    _text("settlement_id"),
    _text("client_id"),
    _text("correlation_id"),
    _text("root_id"),
    _text("task"),
    Column("attempt", Integer, nullable=False),
    _text("sku"),
    _amount("quantity"),
    _amount("credits"),
    Column("grants", JSONB, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("price_version", Integer, nullable=False),
    Column("late", Boolean, nullable=False, server_default=false()),
    _time("submitted_at", nullable=True),
    _time("occurred_at"),
    _time("recorded_at", default=text("clock_timestamp()")),
    Column("corrects", Uuid),
    Column("corrects_line", SmallInteger),
    CheckConstraint("line >= 0", name="line"),
    CheckConstraint("corrects IS NOT NULL OR (quantity >= 0 AND credits >= 0)", name="amounts"),
    Index(None, "client_id", "occurred_at"),
    Index(None, "correlation_id"),
    postgresql_partition_by="RANGE (run_id)",
)

usage_rollup: Final = Table(
    "usage_rollup",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("hour", DateTime(timezone=True), primary_key=True),
    _amount("credits"),
    _amount("quantity"),
    _amount(
        "planned",
        server_default=text("0"),
        comment="the part of credits that increments for the payment provider already carry",
    ),
)

grant_spent: Final = Table(
    "grant_spent",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column(
        "grant_id",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="0 is debt: what no grant covered when it was settled",
    ),
    _amount("credits"),
)

dead_letter: Final = Table(
    "dead_letter",
    METADATA,
    Column("letter_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "digest",
        LargeBinary,
        nullable=False,
        unique=True,
        comment="SHA-256 of the body: a message that is delivered again is kept once",
    ),
    Column("body", LargeBinary, nullable=False),
    _text("reason"),
    _text("queue"),
    _time("received_at", default=_NOW),
)

shard_rebuild: Final = Table(
    "shard_rebuild",
    METADATA,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    _text("reason"),
    _time("requested_at", default=_NOW),
)

recovery_marker: Final = Table(
    "recovery_marker",
    METADATA,
    Column("token", Uuid, primary_key=True),
    Column("shard", Integer, nullable=False),
    _time("committed_at", default=_NOW),
)

fleet: Final = Table(
    "fleet",
    METADATA,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("shards", Integer, nullable=False),
    Column("usage_queues", Integer, nullable=False),
    CheckConstraint("singleton", name="singleton"),
    comment="one row: what may never change once clients exist",
)
