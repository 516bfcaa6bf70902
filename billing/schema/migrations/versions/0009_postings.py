"""Postings: what the log says beyond a bucket's own settles, and which second charges were told to be given back."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0009_postings"
down_revision = "0008_top_ups"

_POSTINGS: Final = """
CREATE TABLE posting (
    client_id text NOT NULL,
    epoch integer NOT NULL,
    grant_id bigint NOT NULL,
    credits bigint NOT NULL DEFAULT 0,
    restored bigint NOT NULL DEFAULT 0,
    version integer NOT NULL,
    applied_version integer NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, epoch, grant_id),
    CONSTRAINT posting_applied_version_check CHECK (applied_version <= version)
);
CREATE INDEX posting_waiting_idx ON posting (client_id) WHERE applied_version < version;
COMMENT ON COLUMN posting.grant_id IS '0 is debt';
COMMENT ON COLUMN posting.credits IS '> 0: taken as spent from the bucket; < 0: given back to it';
COMMENT ON COLUMN posting.restored IS 'put into, or away from, what is available, without spending';
COMMENT ON COLUMN posting.version IS 'rises with each change of the totals';
COMMENT ON COLUMN posting.applied_version IS 'the last version that the bucket is known to have';

CREATE TABLE settlement_returned (
    run_id uuid NOT NULL,
    settlement_id text NOT NULL,
    epoch integer NOT NULL,
    client_id text NOT NULL,
    returned_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, settlement_id, epoch)
);
COMMENT ON TABLE settlement_returned IS 'what a bucket took a second time for a run, and was told to give back, once';
"""

#: What is given back to a grant after its end was entered is entered too, as a row more.
_ENDINGS: Final = """
DROP INDEX ledger_entry_ended_idx;
CREATE INDEX ledger_entry_ended_idx ON ledger_entry (grant_id, kind) WHERE kind IN ('expire', 'void');
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(_POSTINGS)
    op.execute(_ENDINGS)
