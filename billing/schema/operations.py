"""The tables of operations: reconciliation and its repairs, alerts and their webhooks, recorded workloads."""

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
    Uuid,
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
    Column(
        "continuous",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="true: a pass of the continuous reconciler in which something was found, or was gone",
    ),
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
    Column("differs_by", BigInteger, comment="credits; null: it is not a number"),
    Column("closes", BigInteger, comment="the discrepancy of which this row says that it is gone, or another one now"),
    Index(None, "run_id"),
    Index("discrepancy_closes_idx", "closes", unique=True, postgresql_where=text("closes IS NOT NULL")),
)

reconciler: Final = Table(
    "reconciler",
    METADATA,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("leader", Uuid, nullable=False, comment="the worker that is at it"),
    instant("stepped_at", comment="when it took its last step; a silent one is replaced"),
    instant("started_at", comment="when the pass that is under way began"),
    Column("shard", Integer, nullable=False, comment="where the pass is: after this shard's …"),
    words("after", comment="… client"),
    Column("clients", Integer, nullable=False, comment="clients that it has read so far"),
    Column("passes", BigInteger, nullable=False, comment="passes that came to an end, ever"),
    Column("last_pass", JSONB, nullable=False, comment="the last of them: times, clients, cost, what was not compared"),
    CheckConstraint("singleton", name="singleton"),
    comment="one row: where the continuous reconciler is",
)

repair: Final = Table(
    "repair",
    METADATA,
    Column("repair_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, nullable=False, comment="the repair's own reconciliation_run"),
    words("client_id"),
    Column("epoch", Integer, nullable=False, comment="of the bucket that was found to differ"),
    Column("grant_id", BigInteger, comment="0: debt; null: the whole bucket"),
    words("action"),
    amount("credits", comment="posted: from available to spent; negative: given back"),
    amount("restored", comment="posted: put back to available without being spent; negative: removed"),
    Column("found", JSONB, nullable=False, comment="what each book said, at that moment of Redis' clock"),
    words("made_by", comment="the system's user and host that asked for it"),
    instant("made_at", default=NOW),
    CheckConstraint("action IN ('posted', 'rebuild')", name="action"),
    Index(None, "client_id", "repair_id"),
    comment="append-only: what was corrected in buckets, and why",
)

#: The kinds of alerts that a client's webhook is told, and those that are the operator's.
TOLD_TO_CLIENTS: Final = ("low_balance", "exhausted", "debt", "top_up_declined", "late_usage")
ALERT_KINDS: Final = (*TOLD_TO_CLIENTS, "corrupt", "unreported", "waiting_usage", "law_broken")

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
    words(
        "source",
        comment="what it came from, once: a stream entry, epoch and client, increment and generation, client and hour",
    ),
    instant("occurred_at"),
    instant("recorded_at", default=NOW),
    instant("announced_at", nullable=True, comment="when its signal was sent"),
    words("delivery", server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    instant("next_attempt_at", nullable=True),
    instant("delivered_at", nullable=True),
    words("reason", server_default=""),
    words("redis_key", server_default="", comment="corrupt: which key billing did not write"),
    words("found", server_default="", comment="what was found: in that key, of that increment, why usage waits"),
    instant("announcing_until", nullable=True, comment="until when the worker that sends its signal has it"),
    Column("increment_id", BigInteger, comment="unreported, late_usage: which increment it is about"),
    Column(
        "details",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="debt, top_up_declined: amounts and numbers of its kind",
    ),
    UniqueConstraint("source"),
    CheckConstraint(
        "kind IN ('low_balance', 'exhausted', 'debt', 'top_up_declined', 'corrupt', 'unreported', 'late_usage', "
        "'waiting_usage', 'law_broken')",
        name="kind",
    ),
    CheckConstraint("delivery IN ('pending', 'delivered', 'failed', 'none')", name="delivery"),
    Index("alert_pending_idx", "next_attempt_at", postgresql_where=text("delivery = 'pending'")),
    Index("alert_corrupt_idx", "alert_id", postgresql_where=text("kind = 'corrupt'")),
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
