"""Generations of increments, meters with their units, billing periods as Stripe has them, error reports, resolutions.

An increment's units and parts are written once; the rest of its payload changes only with its generation, by one, and
only where nothing of the one before was taken. Every generation stays on record.
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0020_sync_protocol"
down_revision = "0019_unplanned_rollups"

_METERS: Final = """
CREATE TABLE meter (
    event_name text PRIMARY KEY,
    unit text NOT NULL DEFAULT '',
    credits_per_unit bigint NOT NULL DEFAULT 1 CONSTRAINT meter_credits_per_unit_check CHECK (credits_per_unit > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE sku_meter (
    sku text PRIMARY KEY,
    event_name text NOT NULL REFERENCES meter (event_name),
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT billing_make_append_only('meter');
SELECT billing_make_append_only('sku_meter');
"""

_PERIODS: Final = """
CREATE TABLE stripe_period (
    customer_id text NOT NULL,
    event_name text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    closes_at timestamptz,
    subscription_id text NOT NULL DEFAULT '',
    ended boolean NOT NULL DEFAULT false,
    read_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, event_name, period_start),
    CONSTRAINT stripe_period_period_check CHECK (period_start < period_end)
);
COMMENT ON COLUMN stripe_period.closes_at IS 'from when on its invoice may be final; null: not known to close';
COMMENT ON COLUMN stripe_period.ended IS 'the subscription ends with this period: there is no next invoice';
CREATE TABLE stripe_period_read (
    customer_id text PRIMARY KEY,
    read_at timestamptz NOT NULL,
    reason text NOT NULL DEFAULT ''
);
COMMENT ON COLUMN stripe_period_read.reason IS 'why no period is known, if none is';
"""

_LINKS: Final = """
CREATE TABLE stripe_link_change (
    client_id text NOT NULL REFERENCES client (client_id),
    changed_at timestamptz NOT NULL DEFAULT now(),
    was text NOT NULL,
    customer_id text NOT NULL,
    reason text NOT NULL,
    increments integer NOT NULL,
    PRIMARY KEY (client_id, changed_at)
);
COMMENT ON COLUMN stripe_link_change.increments IS 'how many that were not taken go to the new customer';
SELECT billing_make_append_only('stripe_link_change');
"""

_INCREMENT: Final = """
ALTER TABLE stripe_increment
    ADD COLUMN kind text NOT NULL DEFAULT 'meter_event',
    ADD COLUMN credits_per_unit bigint NOT NULL DEFAULT 1,
    ADD COLUMN closes_at timestamptz,
    ADD COLUMN absent_since timestamptz,
    ADD COLUMN absence_checks integer NOT NULL DEFAULT 0,
    ADD COLUMN withdrawn_at timestamptz,
    ADD CONSTRAINT stripe_increment_kind_check CHECK (kind IN ('meter_event', 'invoice_item')),
    ADD CONSTRAINT stripe_increment_credits_per_unit_check CHECK (credits_per_unit > 0),
    DROP CONSTRAINT stripe_increment_state_check,
    ADD CONSTRAINT stripe_increment_state_check CHECK (state IN ('pending', 'sending', 'sent', 'confirmed',
        'ambiguous', 'rejected', 'quarantined', 'written_off'));
COMMENT ON COLUMN stripe_increment.closes_at
    IS 'no attempt begins from then on: the invoice of its period may be final';
COMMENT ON COLUMN stripe_increment.absent_since IS 'since when every look at its minute has found nothing';
COMMENT ON COLUMN stripe_increment.withdrawn_at
    IS 'when Stripe had answered that this generation is to be taken back';
COMMENT ON COLUMN stripe_increment.carries_from IS 'the first hour before its period of which it carries anything';
DROP INDEX stripe_increment_open_idx;
CREATE INDEX stripe_increment_open_idx ON stripe_increment (increment_id)
    WHERE state NOT IN ('sent', 'confirmed', 'written_off');
DROP INDEX stripe_increment_unconfirmed_idx;
CREATE INDEX stripe_increment_unconfirmed_idx ON stripe_increment (checked_at, increment_id)
    WHERE state IN ('sent', 'ambiguous', 'quarantined');
CREATE INDEX stripe_increment_place_idx ON stripe_increment (customer_id, event_name, period_start);

CREATE TABLE stripe_generation (
    increment_id bigint NOT NULL REFERENCES stripe_increment (increment_id),
    generation integer NOT NULL,
    identifier text NOT NULL CONSTRAINT stripe_generation_identifier_key UNIQUE,
    kind text NOT NULL,
    customer_id text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    event_at timestamptz NOT NULL,
    reason text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (increment_id, generation)
);
COMMENT ON COLUMN stripe_generation.reason IS 'why the one before was given up; empty for the first';
INSERT INTO stripe_generation (increment_id, generation, identifier, kind, customer_id, period_start, period_end,
                               event_at, reason, made_at)
SELECT increment_id, generation, identifier, kind, customer_id, period_start, period_end, event_at, '', planned_at
FROM stripe_increment;
CREATE INDEX stripe_generation_again_idx ON stripe_generation (customer_id) WHERE generation > 1;
SELECT billing_make_append_only('stripe_generation');
"""

_WRITE_ONCE: Final = """
CREATE OR REPLACE FUNCTION billing_refuse_payload_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION '%: % is refused: what was planned stays on record', TG_TABLE_NAME, TG_OP;
    END IF;
    IF (OLD.increment_id, OLD.client_id, OLD.event_name, OLD.units, OLD.credits_per_unit, OLD.planned_at)
       IS DISTINCT FROM
       (NEW.increment_id, NEW.client_id, NEW.event_name, NEW.units, NEW.credits_per_unit, NEW.planned_at) THEN
        RAISE EXCEPTION 'stripe_increment: what increment % carries is written once', OLD.increment_id;
    END IF;
    IF OLD.generation = NEW.generation THEN
        IF (OLD.kind, OLD.customer_id, OLD.period_start, OLD.period_end, OLD.event_at, OLD.identifier)
           IS DISTINCT FROM
           (NEW.kind, NEW.customer_id, NEW.period_start, NEW.period_end, NEW.event_at, NEW.identifier) THEN
            RAISE EXCEPTION 'stripe_increment: the payload of increment % is written once', OLD.increment_id;
        END IF;
    ELSIF NEW.generation <> OLD.generation + 1 OR NEW.identifier = OLD.identifier
          OR OLD.state NOT IN ('pending', 'ambiguous', 'rejected', 'quarantined')
          OR NEW.first_attempt_at IS NOT NULL THEN
        RAISE EXCEPTION 'stripe_increment: increment % is %, and has no generation % after %',
            OLD.increment_id, OLD.state, NEW.generation, OLD.generation;
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION billing_keep_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stripe_generation (increment_id, generation, identifier, kind, customer_id, period_start, period_end,
                                   event_at, reason)
    VALUES (NEW.increment_id, NEW.generation, NEW.identifier, NEW.kind, NEW.customer_id, NEW.period_start,
            NEW.period_end, NEW.event_at, CASE WHEN TG_OP = 'INSERT' THEN '' ELSE NEW.reason END);
    RETURN NULL;
END $$;
CREATE TRIGGER stripe_increment_generation AFTER INSERT OR UPDATE OF generation ON stripe_increment
    FOR EACH ROW EXECUTE FUNCTION billing_keep_generation();
ALTER TABLE stripe_increment ENABLE ALWAYS TRIGGER stripe_increment_generation;
"""

# What was planned before periods closed: as months do. What was given up before any call of it may have arrived, as too
# old, needs nobody to look for it: it is planned anew, as late usage is.
_OPEN: Final = """
UPDATE stripe_increment SET closes_at = period_end + interval '50 minutes'
WHERE state IN ('pending', 'sending', 'ambiguous');
UPDATE stripe_increment SET state = 'pending', closes_at = least(period_end + interval '50 minutes', now())
WHERE state = 'quarantined' AND first_attempt_at IS NULL;
"""

_REPORTS: Final = """
CREATE TABLE stripe_error_report (
    event_id text PRIMARY KEY,
    event_name text NOT NULL,
    code text NOT NULL,
    count integer NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    samples jsonb NOT NULL,
    increments jsonb NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN stripe_error_report.samples IS 'idempotency keys of some of the calls that it is about';
COMMENT ON COLUMN stripe_error_report.increments IS 'the increments whose attempts these keys are';
CREATE INDEX stripe_error_report_window_idx ON stripe_error_report (event_name, window_end);
CREATE TABLE stripe_resolution (
    increment_id bigint NOT NULL REFERENCES stripe_increment (increment_id),
    generation integer NOT NULL,
    resolved_as text NOT NULL CONSTRAINT stripe_resolution_resolved_as_check
        CHECK (resolved_as IN ('confirmed', 'resend', 'write-off')),
    was text NOT NULL,
    reason text NOT NULL,
    resolved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (increment_id, generation, resolved_as)
);
COMMENT ON COLUMN stripe_resolution.was IS 'the state in which the person found it';
SELECT billing_make_append_only('stripe_error_report');
SELECT billing_make_append_only('stripe_resolution');
CREATE TABLE stripe_budget (
    name text PRIMARY KEY,
    free_at timestamptz NOT NULL
);
COMMENT ON COLUMN stripe_budget.free_at IS 'when the next call may begin: every call that is taken moves it on';
"""


def upgrade() -> None:
    """Make the tables, widen increments, and let generations follow each other."""
    op.execute(_METERS)
    op.execute(_PERIODS)
    op.execute(_LINKS)
    op.execute(_INCREMENT)
    op.execute(_WRITE_ONCE)
    op.execute(_OPEN)
    op.execute(_REPORTS)
