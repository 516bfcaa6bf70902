"""Terms of grants and clients: kinds, SKUs, voids, states; what else changes a client's credits, and how grants end."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0006_grant_terms"
down_revision = "0005_operations"

_TERMS: Final = """
ALTER TABLE client
    ADD CONSTRAINT client_state_check CHECK (state IN ('active', 'suspended', 'closed'));

ALTER TABLE credit_grant
    ADD COLUMN skus text[] NOT NULL DEFAULT '{}',
    ADD COLUMN voided_at timestamptz,
    ADD CONSTRAINT credit_grant_kind_check CHECK (kind IN ('paid', 'promo', 'allowance', 'adjustment')),
    ADD CONSTRAINT credit_grant_priority_check CHECK (priority BETWEEN 0 AND 1000000);
COMMENT ON COLUMN credit_grant.skus IS 'the SKUs that it pays for; none: every SKU';
COMMENT ON COLUMN credit_grant.voided_at IS 'since when it is taken back; its holds keep what they were lent';
"""

_CHANGES: Final = """
CREATE TABLE client_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    kind text NOT NULL CONSTRAINT client_change_kind_check
        CHECK (kind IN ('void', 'adjust', 'state', 'overdraft')),
    grant_id bigint REFERENCES credit_grant (grant_id),
    credits bigint,
    state text,
    key text NOT NULL,
    reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz,
    CONSTRAINT client_change_client_id_key_key UNIQUE (client_id, key)
);
CREATE INDEX client_change_unapplied_idx ON client_change (change_id) WHERE applied_at IS NULL;
COMMENT ON COLUMN client_change.credits IS 'what an adjustment takes; the limit of an overdraft';
COMMENT ON COLUMN client_change.applied_at IS 'when the bucket in Redis got it; null while it has not';

ALTER TABLE ledger_entry ADD COLUMN change_id bigint REFERENCES client_change (change_id);
CREATE UNIQUE INDEX ledger_entry_ended_idx ON ledger_entry (grant_id, kind) WHERE kind IN ('expire', 'void');
CREATE UNIQUE INDEX ledger_entry_adjusted_idx ON ledger_entry (change_id, grant_id) NULLS NOT DISTINCT
    WHERE kind = 'adjust';
COMMENT ON COLUMN ledger_entry.change_id IS 'the adjustment that it is a part of';
"""


def upgrade() -> None:
    """Change the tables that exist, then make what refers to them."""
    op.execute(_TERMS)
    op.execute(_CHANGES)
