"""The report to Stripe: links, increments with the rollups that they carry, and the attempts to send them (L8)."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0004_stripe"
down_revision = "0003_sums_and_operations"

_TABLES: Final = """
CREATE TABLE stripe_customer (
    client_id text PRIMARY KEY REFERENCES client (client_id),
    customer_id text NOT NULL CONSTRAINT stripe_customer_customer_id_key UNIQUE,
    linked_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE stripe_increment (
    increment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    customer_id text NOT NULL,
    event_name text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    units bigint NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    event_at timestamptz NOT NULL,
    identifier text NOT NULL CONSTRAINT stripe_increment_identifier_key UNIQUE,
    state text NOT NULL DEFAULT 'pending',
    reason text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    planned_at timestamptz NOT NULL DEFAULT now(),
    first_attempt_at timestamptz,
    sent_to text,
    last_attempt_at timestamptz,
    lease_until timestamptz,
    checked_at timestamptz,
    confirmed_at timestamptz,
    CONSTRAINT stripe_increment_customer_id_event_name_event_at_key UNIQUE (customer_id, event_name, event_at),
    CONSTRAINT stripe_increment_units_check CHECK (units > 0 AND units <= 999999999999999),
    CONSTRAINT stripe_increment_period_check CHECK (period_start < period_end),
    CONSTRAINT stripe_increment_state_check CHECK (
        state IN ('pending', 'sending', 'sent', 'confirmed', 'ambiguous', 'rejected', 'quarantined')),
    CONSTRAINT stripe_increment_identifier_check CHECK (length(identifier) <= 100)
);
CREATE UNIQUE INDEX stripe_increment_in_flight_key ON stripe_increment (customer_id, event_name)
    WHERE state = 'sending';
CREATE INDEX stripe_increment_unconfirmed_idx ON stripe_increment (checked_at, increment_id)
    WHERE state IN ('sent', 'ambiguous', 'quarantined');
CREATE INDEX stripe_increment_open_idx ON stripe_increment (increment_id) WHERE state NOT IN ('sent', 'confirmed');
CREATE INDEX stripe_increment_client_id_period_start_idx ON stripe_increment (client_id, period_start);
COMMENT ON COLUMN stripe_increment.event_at IS
    'the minute of this increment alone, so that the summary of that minute is its proof';
COMMENT ON COLUMN stripe_increment.sent_to IS
    'whose books its attempts went to: stand-in, test or live; null before the first';
COMMENT ON COLUMN stripe_increment.lease_until IS 'until when the pusher that is sending it is taken to live';
COMMENT ON COLUMN stripe_increment.checked_at IS 'when its minute was last read from Stripe''s summaries';
COMMENT ON COLUMN stripe_increment.confirmed_at IS 'when Stripe''s own summary showed it';

CREATE TABLE stripe_increment_part (
    increment_id bigint NOT NULL REFERENCES stripe_increment (increment_id),
    sku text NOT NULL,
    hour timestamptz NOT NULL,
    credits_from bigint NOT NULL,
    credits_to bigint NOT NULL,
    PRIMARY KEY (increment_id, sku, hour),
    CONSTRAINT stripe_increment_part_credits_check CHECK (credits_from >= 0 AND credits_to > credits_from)
);

CREATE TABLE stripe_attempt (
    increment_id bigint NOT NULL REFERENCES stripe_increment (increment_id),
    attempt integer NOT NULL,
    idempotency_key text NOT NULL CONSTRAINT stripe_attempt_idempotency_key_key UNIQUE,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome text,
    http_status integer,
    request_id text,
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (increment_id, attempt)
);
COMMENT ON COLUMN stripe_attempt.outcome IS 'null while it is not known: the call may have been made';
"""

# What a plan reads stays as small as what is not planned yet, however long the history is.
_UNPLANNED: Final = """
CREATE INDEX usage_rollup_unplanned_idx ON usage_rollup (client_id, sku, hour) WHERE credits > planned;
"""

# The identifier covers the payload: a changed payload under the old identifier would be taken for a duplicate.
_WRITE_ONCE: Final = """
CREATE FUNCTION billing_refuse_payload_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION '%: % is refused: what was planned stays on record', TG_TABLE_NAME, TG_OP;
    END IF;
    IF (OLD.increment_id, OLD.client_id, OLD.customer_id, OLD.event_name, OLD.period_start, OLD.period_end, OLD.units,
        OLD.generation, OLD.event_at, OLD.identifier, OLD.planned_at)
       IS DISTINCT FROM
       (NEW.increment_id, NEW.client_id, NEW.customer_id, NEW.event_name, NEW.period_start, NEW.period_end, NEW.units,
        NEW.generation, NEW.event_at, NEW.identifier, NEW.planned_at) THEN
        RAISE EXCEPTION 'stripe_increment: the payload of increment % is written once', OLD.increment_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stripe_increment_write_once BEFORE UPDATE OR DELETE ON stripe_increment
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_payload_change();
CREATE TRIGGER stripe_increment_no_truncate BEFORE TRUNCATE ON stripe_increment
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_payload_change();
ALTER TABLE stripe_increment ENABLE ALWAYS TRIGGER stripe_increment_write_once;
ALTER TABLE stripe_increment ENABLE ALWAYS TRIGGER stripe_increment_no_truncate;
SELECT billing_make_append_only('stripe_increment_part');
"""


def upgrade() -> None:
    """Make the tables and their triggers."""
    op.execute(_TABLES)
    op.execute(_UNPLANNED)
    op.execute(_WRITE_ONCE)
