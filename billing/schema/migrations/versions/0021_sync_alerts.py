"""Alerts of the report to Stripe: increments for a person, late usage, usage that waits."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0021_sync_alerts"
down_revision = "0020_sync_protocol"

_ALERT: Final = """
ALTER TABLE alert
    ADD COLUMN increment_id bigint,
    DROP CONSTRAINT alert_kind_check,
    ADD CONSTRAINT alert_kind_check CHECK (kind IN ('low_balance', 'exhausted', 'corrupt', 'unreported', 'late_usage',
        'waiting_usage'));
COMMENT ON COLUMN alert.increment_id IS 'unreported, late_usage: which increment it is about';
COMMENT ON COLUMN alert.found IS 'what was found: in that key, of that increment, why usage waits';
COMMENT ON COLUMN alert.source
    IS 'what it came from, once: a stream entry, epoch and client, increment and generation, client and hour';
CREATE INDEX stripe_increment_late_idx ON stripe_increment (increment_id)
    WHERE carries_from IS NOT NULL OR kind = 'invoice_item' OR state = 'written_off';
"""


def upgrade() -> None:
    """Widen the table of alerts, and let late increments be found."""
    op.execute(_ALERT)
