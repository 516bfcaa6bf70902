"""The tables of the report to Stripe: what is meant to be sent, written before any call, and what came of each call.

An increment's payload is written once: what its identifier covers may not change, and no increment is ever deleted
(L8). Triggers refuse it; only its state and what was found out about it move.
"""

from __future__ import annotations

from typing import Final

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
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.schema.columns import METADATA, NOW, amount, instant, words

#: The states of an increment. Their order of life: `billing.sinks.stripe`.
STATES: Final = ("pending", "sending", "sent", "confirmed", "ambiguous", "rejected", "quarantined", "written_off")

#: Whole numbers of more than 15 digits are refused by Stripe (meter_event_value_too_many_digits).
UNITS_MAX: Final = 10**15 - 1

#: What no generation of an increment changes, and what only another generation does, under another identifier.
WRITE_ONCE: Final = ("increment_id", "client_id", "event_name", "units", "credits_per_unit", "planned_at")
OF_GENERATION: Final = ("generation", "kind", "customer_id", "period_start", "period_end", "event_at", "identifier")

#: Meters whose unit is not one credit, or that do not count every SKU. Written once: another unit is another meter.
meter: Final = Table(
    "meter",
    METADATA,
    Column("event_name", Text, primary_key=True),
    words("unit", server_default=""),
    Column("credits_per_unit", BigInteger, nullable=False, server_default=text("1")),
    instant("created_at", default=NOW),
    CheckConstraint("credits_per_unit > 0", name="credits_per_unit"),
)
sku_meter: Final = Table(
    "sku_meter",
    METADATA,
    Column("sku", Text, primary_key=True),
    Column("event_name", Text, ForeignKey("meter.event_name"), nullable=False),
    instant("created_at", default=NOW),
)

stripe_customer: Final = Table(
    "stripe_customer",
    METADATA,
    Column("client_id", Text, ForeignKey("client.client_id"), primary_key=True),
    words("customer_id", unique=True),
    instant("linked_at", default=NOW),
)

#: Links that were moved to another customer, each for a reason that a person gave.
stripe_link_change: Final = Table(
    "stripe_link_change",
    METADATA,
    Column("client_id", Text, ForeignKey("client.client_id"), primary_key=True),
    Column("changed_at", DateTime(timezone=True), primary_key=True, server_default=NOW),
    words("was"),
    words("customer_id"),
    words("reason"),
    Column("increments", Integer, nullable=False, comment="how many that were not taken go to the new customer"),
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
    instant("carries_from", nullable=True, comment="the first hour before its period of which it carries anything"),
    words("kind", server_default="meter_event"),
    Column("credits_per_unit", BigInteger, nullable=False, server_default=text("1")),
    instant(
        "closes_at", nullable=True, comment="no attempt begins from then on: the invoice of its period may be final"
    ),
    instant("absent_since", nullable=True, comment="since when every look at its minute has found nothing"),
    Column("absence_checks", Integer, nullable=False, server_default=text("0")),
    instant("withdrawn_at", nullable=True, comment="when Stripe had answered that this generation is to be taken back"),
    UniqueConstraint("customer_id", "event_name", "event_at"),
    CheckConstraint(f"units > 0 AND units <= {UNITS_MAX}", name="units"),
    CheckConstraint("period_start < period_end", name="period"),
    CheckConstraint("kind IN ('meter_event', 'invoice_item')", name="kind"),
    CheckConstraint("credits_per_unit > 0", name="credits_per_unit"),
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
    Index(
        "stripe_increment_open_idx",
        "increment_id",
        postgresql_where=text("state NOT IN ('sent', 'confirmed', 'written_off')"),
    ),
    Index(None, "client_id", "period_start"),
    Index("stripe_increment_place_idx", "customer_id", "event_name", "period_start"),
    Index(
        "stripe_increment_late_idx",
        "increment_id",
        postgresql_where=text("carries_from IS NOT NULL OR kind = 'invoice_item' OR state = 'written_off'"),
    ),
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
stripe_generation: Final = Table(
    "stripe_generation",
    METADATA,
    Column("increment_id", BigInteger, ForeignKey("stripe_increment.increment_id"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    words("identifier", unique=True),
    words("kind"),
    words("customer_id"),
    instant("period_start"),
    instant("period_end"),
    instant("event_at"),
    Column("reason", Text, nullable=False, comment="why the one before was given up; empty for the first"),
    instant("made_at", default=NOW),
    Index("stripe_generation_again_idx", "customer_id", postgresql_where=text("generation > 1")),
)

#: Billing periods as Stripe has them, and when each customer's were read.
stripe_period: Final = Table(
    "stripe_period",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("event_name", Text, primary_key=True),
    Column("period_start", DateTime(timezone=True), primary_key=True),
    instant("period_end"),
    instant("closes_at", nullable=True, comment="from when on its invoice may be final; null: not known to close"),
    words("subscription_id", server_default=""),
    Column(
        "ended",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the subscription ends with this period: there is no next invoice",
    ),
    instant("read_at"),
    CheckConstraint("period_start < period_end", name="period"),
)
stripe_period_read: Final = Table(
    "stripe_period_read",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    instant("read_at"),
    Column("reason", Text, nullable=False, server_default="", comment="why no period is known, if none is"),
)

#: What Stripe reported of calls that it had answered with 200, and what a person said of an increment.
stripe_error_report: Final = Table(
    "stripe_error_report",
    METADATA,
    Column("event_id", Text, primary_key=True),
    words("event_name"),
    words("code"),
    Column("count", Integer, nullable=False),
    instant("window_start"),
    instant("window_end"),
    Column("samples", JSONB, nullable=False, comment="idempotency keys of some of the calls that it is about"),
    Column("increments", JSONB, nullable=False, comment="the increments whose attempts these keys are"),
    instant("noted_at", default=NOW),
    Index("stripe_error_report_window_idx", "event_name", "window_end"),
)
stripe_resolution: Final = Table(
    "stripe_resolution",
    METADATA,
    Column("increment_id", BigInteger, ForeignKey("stripe_increment.increment_id"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("resolved_as", Text, primary_key=True),
    Column("was", Text, nullable=False, comment="the state in which the person found it"),
    words("reason"),
    instant("resolved_at", default=NOW),
    CheckConstraint("resolved_as IN ('confirmed', 'resend', 'write-off')", name="resolved_as"),
)

#: The rate that all pushers of a fleet share.
stripe_budget: Final = Table(
    "stripe_budget",
    METADATA,
    Column("name", Text, primary_key=True),
    instant("free_at", comment="when the next call may begin: every call that is taken moves it on"),
)
