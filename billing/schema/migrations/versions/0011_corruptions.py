"""Alerts of corrupted keys, a kind of their own; and who is at an alert's signal."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0011_corruptions"
down_revision = "0010_repairs"

_ALERT: Final = """
ALTER TABLE alert
    ADD COLUMN redis_key text NOT NULL DEFAULT '',
    ADD COLUMN found text NOT NULL DEFAULT '',
    ADD COLUMN announcing_until timestamptz,
    DROP CONSTRAINT alert_kind_check,
    ADD CONSTRAINT alert_kind_check CHECK (kind IN ('low_balance', 'exhausted', 'corrupt'));
COMMENT ON COLUMN alert.redis_key IS 'corrupt: which key billing did not write';
COMMENT ON COLUMN alert.found IS 'corrupt: what that key has';
COMMENT ON COLUMN alert.announcing_until IS 'until when the worker that sends its signal has it';
COMMENT ON COLUMN alert.source
    IS 'the entry of the shard''s stream that it came from; corrupt: epoch and client';
"""


def upgrade() -> None:
    """Widen the table of alerts."""
    op.execute(_ALERT)
