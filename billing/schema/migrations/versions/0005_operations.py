"""Operations: reconciliation's runs and discrepancies, alerts and their webhooks, recorded workloads."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0005_operations"
down_revision = "0004_stripe"

_RECONCILIATION: Final = """
CREATE TABLE reconciliation_run (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    clients integer NOT NULL DEFAULT 0,
    laws jsonb NOT NULL DEFAULT '[]'::jsonb,
    held boolean,
    whole boolean NOT NULL DEFAULT true,
    resume_after text
);
COMMENT ON COLUMN reconciliation_run.finished_at IS 'null: it died on the way';
COMMENT ON COLUMN reconciliation_run.laws IS 'each law, and what was compared';
COMMENT ON COLUMN reconciliation_run.held IS 'whether every law held; null while it runs';
COMMENT ON COLUMN reconciliation_run.whole IS 'false: only of clients by name';
COMMENT ON COLUMN reconciliation_run.resume_after IS 'it ran out of time after this client; null: it reached all';

CREATE TABLE discrepancy (
    discrepancy_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES reconciliation_run (run_id),
    law text NOT NULL,
    client_id text,
    grant_id bigint,
    found text NOT NULL,
    rows jsonb NOT NULL DEFAULT '[]'::jsonb
);
CREATE INDEX discrepancy_run_id_idx ON discrepancy (run_id);
COMMENT ON COLUMN discrepancy.rows IS 'the rows that differ, bounded';
"""

_ALERTS: Final = """
CREATE TABLE webhook (
    client_id text PRIMARY KEY REFERENCES client (client_id),
    url text NOT NULL,
    secret text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN webhook.secret IS 'signs what is sent (Standard Webhooks); shown once, when it is made';

CREATE TABLE alert (
    alert_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL,
    kind text NOT NULL CONSTRAINT alert_kind_check CHECK (kind IN ('low_balance', 'exhausted')),
    threshold_percent integer NOT NULL,
    available bigint NOT NULL,
    granted bigint NOT NULL,
    source text NOT NULL CONSTRAINT alert_source_key UNIQUE,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    announced_at timestamptz,
    delivery text NOT NULL DEFAULT 'pending'
        CONSTRAINT alert_delivery_check CHECK (delivery IN ('pending', 'delivered', 'failed', 'none')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    delivered_at timestamptz,
    reason text NOT NULL DEFAULT ''
);
CREATE INDEX alert_pending_idx ON alert (next_attempt_at) WHERE delivery = 'pending';
CREATE INDEX alert_unannounced_idx ON alert (alert_id) WHERE announced_at IS NULL;
CREATE INDEX alert_client_id_alert_id_idx ON alert (client_id, alert_id);
COMMENT ON COLUMN alert.source IS 'the entry of the shard''s stream that it came from';
COMMENT ON COLUMN alert.announced_at IS 'when its signal was sent';
"""

_WORKLOADS: Final = """
CREATE TABLE recorded_workload (
    digest text PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL CONSTRAINT recorded_workload_started_at_key UNIQUE,
    finished_at timestamptz
);
COMMENT ON COLUMN recorded_workload.digest IS 'SHA-256 of the file and of what its replay was told';
COMMENT ON COLUMN recorded_workload.started_at IS
    'the time bits of its run ids, so that a second start makes the same';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(_RECONCILIATION)
    op.execute(_ALERTS)
    op.execute(_WORKLOADS)
