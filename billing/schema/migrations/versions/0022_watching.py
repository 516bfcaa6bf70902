"""What watches: who was seen when, how each law's last check came out; alerts of debt, top-ups, broken laws."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0022_watching"
down_revision = "0021_sync_alerts"

_LAST_SEEN: Final = """
CREATE TABLE last_seen (
    process text NOT NULL CONSTRAINT last_seen_process_check CHECK (process IN ('beat', 'consumer')),
    name text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'::jsonb,
    PRIMARY KEY (process, name)
);
COMMENT ON COLUMN last_seen.name IS 'consumer: its worker''s name; beat: one row for all';
COMMENT ON COLUMN last_seen.details IS 'consumer: what it had in hand when it was seen';
"""

_LAW_CHECK: Final = """
CREATE TABLE law_check (
    law text PRIMARY KEY,
    checked_at timestamptz NOT NULL,
    examined bigint NOT NULL,
    violations bigint NOT NULL,
    found text NOT NULL DEFAULT '',
    resume_after text NOT NULL DEFAULT '',
    remembered jsonb NOT NULL DEFAULT '{}'::jsonb
);
COMMENT ON COLUMN law_check.examined IS 'how many things the last slice looked at';
COMMENT ON COLUMN law_check.resume_after IS 'where the next slice begins; empty: at the front';
COMMENT ON COLUMN law_check.remembered IS 'what the next check needs of this one, as how many rows each month had';
"""

_ALERT: Final = """
ALTER TABLE alert
    DROP CONSTRAINT alert_kind_check,
    ADD CONSTRAINT alert_kind_check CHECK (kind IN ('low_balance', 'exhausted', 'debt', 'top_up_declined', 'corrupt',
        'unreported', 'late_usage', 'waiting_usage', 'law_broken')),
    ADD COLUMN details jsonb NOT NULL DEFAULT '{}'::jsonb;
COMMENT ON COLUMN alert.details IS 'debt, top_up_declined: amounts and numbers of its kind';
CREATE INDEX alert_corrupt_idx ON alert (alert_id) WHERE kind = 'corrupt';
"""


def upgrade() -> None:
    """Make the tables, and widen the kinds of alerts."""
    op.execute(_LAST_SEEN)
    op.execute(_LAW_CHECK)
    op.execute(_ALERT)
