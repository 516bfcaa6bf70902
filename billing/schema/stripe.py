"""The tables of the report to Stripe: what is meant to be sent, written before any call, and what came of each call.

An increment's payload is written once: what its identifier covers may not change, and no increment is ever deleted
(L8). Triggers refuse it; only its state and what was found out about it move.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
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

#: The states of an increment. Their order of life: `billing.sinks.stripe`.
STATES: Final = ("pending", "sending", "sent", "confirmed", "ambiguous", "rejected", "quarantined")

#: Whole numbers of more than 15 digits are refused by Stripe (meter_event_value_too_many_digits).
UNITS_MAX: Final = 10**15 - 1

#: The columns that an increment's identifier covers.
WRITE_ONCE: Final = (
    "increment_id",
    "client_id",
    "customer_id",
    "event_name",
    "period_start",
    "period_end",
    "units",
    "generation",
    "event_at",
    "identifier",
    "planned_at",
)

stripe_customer: Final = Table(
    "stripe_customer",
    METADATA,
    Column("client_id", Text, ForeignKey("client.client_id"), primary_key=True),
    words("customer_id", unique=True),
    instant("linked_at", default=NOW),
)

stripe_increment: Final = Table(
    "stripe_increment",
    METADATA,
    Column("increment_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    words("customer_id"),
    words("event_name"),
    instant("period_start"),
    instant("period_end"),
    amount("units"),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    instant("event_at", comment="the minute of this increment alone, so that the summary of that minute is its proof"),
    words("identifier", unique=True),
    words("state", server_default="pending"),
    words("reason", server_default=""),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    instant("planned_at", default=NOW),
    instant("first_attempt_at", nullable=True),
    Column("sent_to", Text, comment="whose books its attempts went to: stand-in, test or live; null before the first"),
    instant("last_attempt_at", nullable=True),
    instant("lease_until", nullable=True, comment="until when the pusher that is sending it is taken to live"),
    instant("checked_at", nullable=True, comment="when its minute was last read from Stripe's summaries"),
    instant("confirmed_at", nullable=True, comment="when Stripe's own summary showed it"),
    instant(
        "carries_from", nullable=True, comment="the first hour before its period of which it carries what returned"
    ),
    UniqueConstraint("customer_id", "event_name", "event_at"),
    CheckConstraint(f"units > 0 AND units <= {UNITS_MAX}", name="units"),
    CheckConstraint("period_start < period_end", name="period"),
    CheckConstraint(f"state IN ({', '.join(repr(state) for state in STATES)})", name="state"),
    CheckConstraint("length(identifier) <= 100", name="identifier"),
    Index(
        "stripe_increment_in_flight_key",
        "customer_id",
        "event_name",
        unique=True,
        postgresql_where=text("state = 'sending'"),
    ),
    Index(
        "stripe_increment_unconfirmed_idx",
        "checked_at",
        "increment_id",
        postgresql_where=text("state IN ('sent', 'ambiguous', 'quarantined')"),
    ),
    Index("stripe_increment_open_idx", "increment_id", postgresql_where=text("state NOT IN ('sent', 'confirmed')")),
    Index(None, "client_id", "period_start"),
    Index(
        "stripe_increment_carries_idx", "client_id", "carries_from", postgresql_where=text("carries_from IS NOT NULL")
    ),
)

#: Which part of which rollup row an increment carries: credits from (exclusive) and up to a running total of the row.
#: What was used is a running total from 0 up, what corrections returned is another one, from 0 down.
stripe_increment_part: Final = Table(
    "stripe_increment_part",
    METADATA,
    Column("increment_id", BigInteger, ForeignKey("stripe_increment.increment_id"), primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("hour", DateTime(timezone=True), primary_key=True),
    amount("credits_from"),
    Column("credits_to", BigInteger, primary_key=True, autoincrement=False),
    CheckConstraint(
        "credits_from >= 0 AND credits_to > credits_from OR credits_from <= 0 AND credits_to < credits_from",
        name="credits",
    ),
)
stripe_attempt: Final = Table(
    "stripe_attempt",
    METADATA,
    Column("increment_id", BigInteger, ForeignKey("stripe_increment.increment_id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    words("idempotency_key", unique=True),
    instant("started_at", default=NOW),
    instant("finished_at", nullable=True),
    Column("outcome", Text, comment="null while it is not known: the call may have been made"),
    Column("http_status", Integer),
    Column("request_id", Text),
    words("reason", server_default=""),
)
