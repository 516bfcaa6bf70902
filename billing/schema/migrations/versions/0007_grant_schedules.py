"""Allowances: grants that repeat by the calendar, each period's once."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0007_grant_schedules"
down_revision = "0006_grant_terms"

_SCHEDULES: Final = """
CREATE TABLE grant_schedule (
    schedule_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    key text NOT NULL,
    credits bigint NOT NULL CONSTRAINT grant_schedule_credits_check CHECK (credits > 0),
    kind text NOT NULL DEFAULT 'allowance',
    priority integer NOT NULL DEFAULT 100,
    skus text[] NOT NULL DEFAULT '{}',
    every text NOT NULL CONSTRAINT grant_schedule_every_check CHECK (every IN ('day', 'week', 'month')),
    rollover integer,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    state text NOT NULL DEFAULT 'open' CONSTRAINT grant_schedule_state_check CHECK (state IN ('open', 'ended')),
    end_key text,
    ended_at timestamptz,
    following integer NOT NULL,
    next_at timestamptz NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT grant_schedule_client_id_key_key UNIQUE (client_id, key)
);
CREATE INDEX grant_schedule_due_idx ON grant_schedule (next_at) WHERE state = 'open';
COMMENT ON COLUMN grant_schedule.rollover IS
    'for how many further periods what is left of a grant stays usable; null: for ever';
COMMENT ON COLUMN grant_schedule.ends_at IS 'no period begins then or later';
COMMENT ON COLUMN grant_schedule.end_key IS 'the key of the call that ended it';
COMMENT ON COLUMN grant_schedule.following IS 'the number of the next period to be granted';
COMMENT ON COLUMN grant_schedule.next_at IS 'when to look at it next';
COMMENT ON COLUMN grant_schedule.reason IS 'why the grant that is due could not be written, or why it ended';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(_SCHEDULES)
