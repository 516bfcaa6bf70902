"""Reconciliation that never ends, and what it corrects: its one row, how a discrepancy is closed, repairs."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0010_repairs"
down_revision = "0009_postings"

_DISCREPANCY: Final = """
ALTER TABLE reconciliation_run ADD COLUMN continuous boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN reconciliation_run.continuous
    IS 'true: a pass of the continuous reconciler in which something was found, or was gone';

ALTER TABLE discrepancy ADD COLUMN differs_by bigint, ADD COLUMN closes bigint;
COMMENT ON COLUMN discrepancy.differs_by IS 'credits; null: it is not a number';
COMMENT ON COLUMN discrepancy.closes
    IS 'the discrepancy of which this row says that it is gone, or another one now';
CREATE UNIQUE INDEX discrepancy_closes_idx ON discrepancy (closes) WHERE closes IS NOT NULL;
"""

_RECONCILER: Final = """
CREATE TABLE reconciler (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT reconciler_singleton_check CHECK (singleton),
    leader uuid NOT NULL,
    stepped_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    shard integer NOT NULL,
    after text NOT NULL,
    clients integer NOT NULL,
    passes bigint NOT NULL,
    last_pass jsonb NOT NULL
);
COMMENT ON TABLE reconciler IS 'one row: where the continuous reconciler is';
COMMENT ON COLUMN reconciler.leader IS 'the worker that is at it';
COMMENT ON COLUMN reconciler.stepped_at IS 'when it took its last step; a silent one is replaced';
COMMENT ON COLUMN reconciler.started_at IS 'when the pass that is under way began';
COMMENT ON COLUMN reconciler.shard IS 'where the pass is: after this shard''s …';
COMMENT ON COLUMN reconciler.after IS '… client';
COMMENT ON COLUMN reconciler.clients IS 'clients that it has read so far';
COMMENT ON COLUMN reconciler.passes IS 'passes that came to an end, ever';
COMMENT ON COLUMN reconciler.last_pass IS 'the last of them: times, clients, cost, what was not compared';
"""

_REPAIR: Final = """
CREATE TABLE repair (
    repair_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL,
    client_id text NOT NULL,
    epoch integer NOT NULL,
    grant_id bigint,
    action text NOT NULL CONSTRAINT repair_action_check CHECK (action IN ('posted', 'rebuild')),
    credits bigint NOT NULL,
    restored bigint NOT NULL,
    found jsonb NOT NULL,
    made_by text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX repair_client_id_repair_id_idx ON repair (client_id, repair_id);
COMMENT ON TABLE repair IS 'append-only: what was corrected in buckets, and why';
COMMENT ON COLUMN repair.run_id IS 'the repair''s own reconciliation_run';
COMMENT ON COLUMN repair.epoch IS 'of the bucket that was found to differ';
COMMENT ON COLUMN repair.grant_id IS '0: debt; null: the whole bucket';
COMMENT ON COLUMN repair.credits IS 'posted: from available to spent; negative: given back';
COMMENT ON COLUMN repair.restored
    IS 'posted: put back to available without being spent; negative: removed';
COMMENT ON COLUMN repair.found IS 'what each book said, at that moment of Redis'' clock';
COMMENT ON COLUMN repair.made_by IS 'the system''s user and host that asked for it';
SELECT billing_make_append_only('repair');
"""


def upgrade() -> None:
    """Widen what reconciliation writes, then make the two new tables; repairs are append-only (L7)."""
    for statements in (_DISCREPANCY, _RECONCILER, _REPAIR):
        op.execute(statements)
