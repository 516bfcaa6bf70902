"""Corrections of the usage history: who, which line, why; and how the report to Stripe carries what they return.

What a correction returns is a running total of its own in a rollup row, below 0, beside the one of what was used: both
only ever grow away from 0, so that parts of increments still lie end to end.
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0017_usage_corrections"
down_revision = "0016_archive"

_CORRECTION: Final = """
CREATE TABLE usage_correction (
    run_id uuid PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    key text NOT NULL,
    corrects uuid NOT NULL,
    corrects_line smallint NOT NULL,
    credits bigint NOT NULL CONSTRAINT usage_correction_credits_check CHECK (credits <> 0),
    grants jsonb NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (client_id, key)
);
CREATE INDEX usage_correction_corrects_corrects_line_idx ON usage_correction (corrects, corrects_line);
COMMENT ON COLUMN usage_correction.run_id IS 'of the compensating row; its line is 0';
COMMENT ON COLUMN usage_correction.credits IS '< 0: returned to the client; > 0: charged to it';
COMMENT ON COLUMN usage_correction.grants IS 'of which grant how much; grant 0 is debt';
SELECT billing_make_append_only('usage_correction');
"""

_ROLLUP: Final = """
ALTER TABLE usage_rollup ADD COLUMN returned bigint NOT NULL DEFAULT 0,
                         ADD COLUMN returned_planned bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN usage_rollup.returned IS 'what corrections returned; credits are what is left after it';
COMMENT ON COLUMN usage_rollup.returned_planned IS 'the part of returned that increments carry; planned is after it';
DROP INDEX usage_rollup_unplanned_idx;
CREATE INDEX usage_rollup_unplanned_idx ON usage_rollup (client_id, sku, hour)
    WHERE credits > planned OR returned > returned_planned;
"""

#: An increment may carry of one row what was used and what was returned: one of them ends above 0, the other below. And
#: it may carry what was returned before its period, for which a receipt of that time looks.
_PART: Final = """
ALTER TABLE stripe_increment_part
    DROP CONSTRAINT stripe_increment_part_pkey,
    ADD PRIMARY KEY (increment_id, sku, hour, credits_to),
    DROP CONSTRAINT stripe_increment_part_credits_check,
    ADD CONSTRAINT stripe_increment_part_credits_check CHECK (
        credits_from >= 0 AND credits_to > credits_from OR credits_from <= 0 AND credits_to < credits_from
    );
ALTER TABLE stripe_increment ADD COLUMN carries_from timestamptz;
COMMENT ON COLUMN stripe_increment.carries_from
    IS 'the first hour before its period of which it carries what returned';
CREATE INDEX stripe_increment_carries_idx ON stripe_increment (client_id, carries_from) WHERE carries_from IS NOT NULL;
"""


def upgrade() -> None:
    """Make the table, and widen rollups and parts."""
    op.execute(_CORRECTION)
    op.execute(_ROLLUP)
    op.execute(_PART)
