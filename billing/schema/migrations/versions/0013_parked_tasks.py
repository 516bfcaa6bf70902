"""Parked tasks: whole messages that wait in PostgreSQL until their client can pay."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0013_parked_tasks"
down_revision = "0012_posting_facts"

_PARKED: Final = """
CREATE TABLE parked_task (
    parked_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    client_id text NOT NULL REFERENCES client (client_id),
    task text NOT NULL,
    task_id text NOT NULL,
    sku text NOT NULL,
    credits bigint NOT NULL,
    available bigint NOT NULL,
    body bytea NOT NULL,
    content_type text NOT NULL,
    content_encoding text NOT NULL,
    headers text NOT NULL,
    properties text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CONSTRAINT parked_task_state_check
        CHECK (state IN ('waiting', 'started', 'expired', 'cancelled')),
    times integer NOT NULL,
    parked_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    begun_at timestamptz,
    tell_at timestamptz,
    CONSTRAINT parked_task_ended_check CHECK ((state = 'waiting') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX parked_task_run_id_idx ON parked_task (run_id);
CREATE INDEX parked_task_waiting_idx ON parked_task (client_id, parked_id) WHERE state = 'waiting';
CREATE INDEX parked_task_expires_idx ON parked_task (expires_at) WHERE state = 'waiting';
CREATE INDEX parked_task_under_way_idx ON parked_task (client_id, ended_at)
    WHERE state = 'started' AND begun_at IS NULL;
CREATE INDEX parked_task_tell_idx ON parked_task (tell_at) WHERE tell_at IS NOT NULL;
CREATE INDEX parked_task_ended_idx ON parked_task (ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON COLUMN parked_task.parked_id IS 'the order of parking';
COMMENT ON COLUMN parked_task.task_id IS 'Celery''s id of it';
COMMENT ON COLUMN parked_task.credits IS 'what its reserve asks for';
COMMENT ON COLUMN parked_task.available IS 'what the client could have had when it was refused last';
COMMENT ON COLUMN parked_task.body IS 'the message''s, in its own encoding';
COMMENT ON COLUMN parked_task.headers IS 'the message''s, as JSON';
COMMENT ON COLUMN parked_task.properties IS 'the message''s, as JSON';
COMMENT ON COLUMN parked_task.times IS 'how often it was parked; the message handed over says it, too';
COMMENT ON COLUMN parked_task.parked_at IS 'first';
COMMENT ON COLUMN parked_task.ended_at IS 'when it was handed over, expired or was cancelled';
COMMENT ON COLUMN parked_task.begun_at IS 'when the message handed over had reserved its credits';
COMMENT ON COLUMN parked_task.tell_at IS 'when its failure is to be told to the result backend';
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(_PARKED)
