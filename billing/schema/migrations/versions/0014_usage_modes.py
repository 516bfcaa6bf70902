"""Which runs were outside the ceiling (L1): in a dry run, or while Redis was away.

Months that retention has detached get the column too, so that one may be attached again. No row is touched: a column
that may be null is added without a look at them, and the triggers that guard rows stay (L7).
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0014_usage_modes"
down_revision = "0013_parked_tasks"

COLUMN: Final = """
ALTER TABLE usage_history ADD COLUMN mode text;
COMMENT ON COLUMN usage_history.mode
    IS 'dry_run, meter_only: the run was outside the ceiling; null: it was not';
"""

#: The months in the schema `archive`, which need not be there.
ARCHIVED: Final = """
DO $$
DECLARE
    month regclass;
BEGIN
    FOR month IN
        SELECT pg_class.oid FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = 'archive' AND relkind = 'r' AND relname ~ '^usage_history_' ORDER BY relname
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN IF NOT EXISTS mode text', month);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Widen the history."""
    op.execute(COLUMN)
    op.execute(ARCHIVED)
