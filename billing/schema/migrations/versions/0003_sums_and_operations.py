"""What the consumer derives in the batch's transaction, what it could not take, and what recovery needs."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0003_sums_and_operations"
down_revision = "0002_usage_history"

_SUMS: Final = """
CREATE TABLE usage_rollup (
    client_id text NOT NULL,
    sku text NOT NULL,
    hour timestamptz NOT NULL,
    credits bigint NOT NULL,
    quantity bigint NOT NULL,
    planned bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, sku, hour)
);
COMMENT ON COLUMN usage_rollup.planned IS 'the part of credits that increments for the payment provider already carry';

CREATE TABLE grant_spent (
    client_id text NOT NULL,
    grant_id bigint NOT NULL,
    credits bigint NOT NULL,
    PRIMARY KEY (client_id, grant_id)
);
COMMENT ON COLUMN grant_spent.grant_id IS '0 is debt: what no grant covered when it was settled';
"""

_OPERATIONS: Final = """
CREATE TABLE dead_letter (
    letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL CONSTRAINT dead_letter_digest_key UNIQUE,
    body bytea NOT NULL,
    reason text NOT NULL,
    queue text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN dead_letter.digest IS 'SHA-256 of the body: a message that is delivered again is kept once';

CREATE TABLE shard_rebuild (
    shard integer PRIMARY KEY,
    reason text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE recovery_marker (
    token uuid PRIMARY KEY,
    shard integer NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE fleet (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT fleet_singleton_check CHECK (singleton),
    shards integer NOT NULL,
    usage_queues integer NOT NULL
);
COMMENT ON TABLE fleet IS 'one row: what may never change once clients exist';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(_SUMS)
    op.execute(_OPERATIONS)
