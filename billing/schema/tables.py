"""The tables, as SQLAlchemy sees them. The migrations make them; a test holds the two equal.

Amounts are `bigint`, times `timestamptz`. `price`, `ledger_entry` and `usage_history` are append-only (L7): triggers
refuse UPDATE, DELETE and TRUNCATE for every role, so nothing here or elsewhere may try.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.schema.columns import METADATA, NOW, amount, instant, words

#: Tables that nobody may change, only add to (L7).
APPEND_ONLY: Final = (
    "price",
    "ledger_entry",
    "usage_history",
    "usage_correction",
    "meter",
    "sku_meter",
    "stripe_generation",
    "stripe_error_report",
    "stripe_resolution",
    "stripe_link_change",
)

client: Final = Table(
    "client",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("shard", Integer, nullable=False),
    Column("epoch", Integer, nullable=False, server_default=text("1")),
    words("state", server_default="active"),
    amount("overdraft_limit", server_default=text("0")),
    instant("created_at", default=NOW),
    CheckConstraint("epoch >= 1", name="epoch"),
    CheckConstraint("overdraft_limit >= 0", name="overdraft_limit"),
    CheckConstraint("state IN ('active', 'suspended', 'closed')", name="state"),
    Index(None, "shard"),
)

credit_grant: Final = Table(
    "credit_grant",
    METADATA,
    Column("grant_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    words("kind", server_default="paid"),
    amount("credits"),
    Column("priority", Integer, nullable=False, server_default=text("100")),
    instant("expires_at", nullable=True),
    Column("key", Text),
    instant("created_at", default=NOW),
    instant("applied_at", nullable=True, comment="when the bucket in Redis got it; null while it has not"),
    Column(
        "skus",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="the SKUs that it pays for; none: every SKU",
    ),
    instant("voided_at", nullable=True, comment="since when it is taken back; its holds keep what they were lent"),
    UniqueConstraint("client_id", "key"),
    CheckConstraint("credits > 0", name="credits"),
    CheckConstraint("kind IN ('paid', 'promo', 'allowance', 'adjustment')", name="kind"),
    CheckConstraint("priority BETWEEN 0 AND 1000000", name="priority"),
    Index("credit_grant_unapplied_idx", "grant_id", postgresql_where=text("applied_at IS NULL")),
)

client_change: Final = Table(
    "client_change",
    METADATA,
    Column("change_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    words("kind"),
    Column("grant_id", BigInteger, ForeignKey("credit_grant.grant_id")),
    Column("credits", BigInteger, comment="what an adjustment takes; the limit of an overdraft"),
    Column("state", Text),
    words("key"),
    words("reason", server_default=""),
    instant("created_at", default=NOW),
    instant("applied_at", nullable=True, comment="when the bucket in Redis got it; null while it has not"),
    UniqueConstraint("client_id", "key"),
    CheckConstraint("kind IN ('void', 'adjust', 'state', 'overdraft')", name="kind"),
    Index("client_change_unapplied_idx", "change_id", postgresql_where=text("applied_at IS NULL")),
)

ledger_entry: Final = Table(
    "ledger_entry",
    METADATA,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    Column("grant_id", BigInteger, ForeignKey("credit_grant.grant_id")),
    words("kind"),
    amount("credits"),
    words("reason", server_default=""),
    instant("created_at", default=NOW),
    Column(
        "change_id",
        BigInteger,
        ForeignKey("client_change.change_id"),
        comment="the adjustment that it is a part of",
    ),
    Column(
        "repaid",
        BigInteger,
        comment="expire, void: what debt the grant had repaid when it ended; what came back to it since repays none",
    ),
    Index(None, "client_id", "entry_id"),
    Index(
        "ledger_entry_ended_idx",
        "grant_id",
        "kind",
        postgresql_where=text("kind IN ('expire', 'void')"),
    ),
    Index(
        "ledger_entry_adjusted_idx",
        "change_id",
        "grant_id",
        unique=True,
        postgresql_where=text("kind = 'adjust'"),
        postgresql_nulls_not_distinct=True,
    ),
)

price: Final = Table(
    "price",
    METADATA,
    Column("sku", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    amount("credits_per_unit"),
    words("unit"),
    instant("effective_at"),
    instant("created_at", default=NOW),
    UniqueConstraint("version"),
    UniqueConstraint("sku", "effective_at"),
    CheckConstraint("credits_per_unit >= 0", name="credits_per_unit"),
)

usage_history: Final = Table(
    "usage_history",
    METADATA,
    Column("run_id", Uuid, primary_key=True),
    Column("line", SmallInteger, primary_key=True),
    words("settlement_id"),
    words("client_id"),
    words("correlation_id"),
    words("root_id"),
    words("task"),
    Column("attempt", Integer, nullable=False),
    words("sku"),
    amount("quantity"),
    amount("credits"),
    Column("grants", JSONB, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("price_version", Integer, nullable=False),
    Column("late", Boolean, nullable=False, server_default=false()),
    instant("submitted_at", nullable=True),
    instant("occurred_at"),
    instant("recorded_at", default=text("clock_timestamp()")),
    Column("corrects", Uuid),
    Column("corrects_line", SmallInteger),
    Column("mode", Text, comment="dry_run, meter_only: the run was outside the ceiling; null: it was not"),
    CheckConstraint("line >= 0", name="line"),
    CheckConstraint("corrects IS NOT NULL OR (quantity >= 0 AND credits >= 0)", name="amounts"),
    Index(None, "client_id", "occurred_at"),
    Index(None, "correlation_id"),
    # The other rows of a root are those of its own task: they are found by their correlation id.
    Index("usage_history_root_id_idx", "root_id", postgresql_where=text("root_id <> correlation_id")),
    postgresql_partition_by="RANGE (run_id)",
)

usage_rollup: Final = Table(
    "usage_rollup",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("hour", DateTime(timezone=True), primary_key=True),
    amount("credits"),
    amount("quantity"),
    amount(
        "planned",
        server_default=text("0"),
        comment="the part of credits that increments for the payment provider already carry",
    ),
    amount(
        "returned",
        server_default=text("0"),
        comment="what corrections returned; credits are what is left after it",
    ),
    amount(
        "returned_planned",
        server_default=text("0"),
        comment="the part of returned that increments carry; planned is after it",
    ),
    Column(
        "unplanned",
        Boolean,
        Computed("credits > planned OR returned > returned_planned", persisted=True),
        nullable=False,
        comment="there is something that no increment carries yet",
    ),
    # A column that changes with every batch may not be named here: each update would write to every index.
    Index("usage_rollup_unplanned_idx", "client_id", "sku", "hour", postgresql_where=text("unplanned")),
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
    amount("credits"),
)

posting: Final = Table(
    "posting",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("grant_id", BigInteger, primary_key=True, autoincrement=False, comment="0 is debt"),
    amount("credits", server_default=text("0"), comment="> 0: taken as spent from the bucket; < 0: given back to it"),
    amount("restored", server_default=text("0"), comment="put into, or away from, what is available, without spending"),
    Column("version", Integer, nullable=False, comment="rises with each change of the totals"),
    Column(
        "applied_version",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="the last version that the bucket is known to have",
    ),
    Column("refused", Text, comment="why the bucket takes it not, as it said last; null: it was not refused"),
    CheckConstraint("applied_version <= version", name="applied_version"),
    Index("posting_waiting_idx", "client_id", postgresql_where=text("applied_version < version")),
)

settlement_returned: Final = Table(
    "settlement_returned",
    METADATA,
    Column("run_id", Uuid, primary_key=True),
    Column("settlement_id", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    words("client_id"),
    instant("returned_at", default=NOW),
    comment="what a bucket took a second time for a run, and was told to give back, once",
)

shard_rebuild: Final = Table(
    "shard_rebuild",
    METADATA,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    words("reason"),
    instant("requested_at", default=NOW),
)

recovery_marker: Final = Table(
    "recovery_marker",
    METADATA,
    Column("token", Uuid, primary_key=True),
    Column("shard", Integer, nullable=False),
    instant("committed_at", default=NOW),
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
