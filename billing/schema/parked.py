"""The table of parked tasks: whole messages that wait in PostgreSQL until their client can pay."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Uuid,
    text,
)

from billing.schema.columns import METADATA, amount, instant, words

_WAITING: Final = text("state = 'waiting'")

parked_task: Final = Table(
    "parked_task",
    METADATA,
    Column("parked_id", BigInteger, Identity(always=True), primary_key=True, comment="the order of parking"),
    Column("run_id", Uuid, nullable=False),
    Column("client_id", ForeignKey("client.client_id"), nullable=False),
    words("task"),
    words("task_id", comment="Celery's id of it"),
    words("sku"),
    amount("credits", comment="what its reserve asks for"),
    amount("available", comment="what the client could have had when it was refused last"),
    Column("body", LargeBinary, nullable=False, comment="the message's, in its own encoding"),
    words("content_type"),
    words("content_encoding"),
    words("headers", comment="the message's, as JSON"),
    words("properties", comment="the message's, as JSON"),
    words("exchange"),
    words("routing_key"),
    words("state", server_default="waiting"),
    Column("times", Integer, nullable=False, comment="how often it was parked; the message handed over says it, too"),
    instant("parked_at", comment="first"),
    instant("expires_at"),
    instant("ended_at", nullable=True, comment="when it was handed over, expired or was cancelled"),
    instant("begun_at", nullable=True, comment="when the message handed over had reserved its credits"),
    instant("tell_at", nullable=True, comment="when its failure is to be told to the result backend"),
    CheckConstraint("state IN ('waiting', 'started', 'expired', 'cancelled')", name="state"),
    CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name="ended"),
    Index("parked_task_run_id_idx", "run_id", unique=True),
    Index("parked_task_waiting_idx", "client_id", "parked_id", postgresql_where=_WAITING),
    Index("parked_task_expires_idx", "expires_at", postgresql_where=_WAITING),
    Index(
        "parked_task_under_way_idx",
        "client_id",
        "ended_at",
        postgresql_where=text("state = 'started' AND begun_at IS NULL"),
    ),
    Index("parked_task_tell_idx", "tell_at", postgresql_where=text("tell_at IS NOT NULL")),
    Index("parked_task_ended_idx", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)
