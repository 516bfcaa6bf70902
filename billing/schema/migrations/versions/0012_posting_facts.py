"""What a rebuild must know of a grant that has ended, and who waits for a posting that no bucket takes."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0012_posting_facts"
down_revision = "0011_corruptions"

_COLUMNS: Final = """
ALTER TABLE ledger_entry ADD COLUMN repaid bigint;
COMMENT ON COLUMN ledger_entry.repaid
    IS 'expire, void: what debt the grant had repaid when it ended; what came back to it since repays none';

ALTER TABLE posting ADD COLUMN refused text;
COMMENT ON COLUMN posting.refused IS 'why the bucket takes it not, as it said last; null: it was not refused';
"""


def upgrade() -> None:
    """Widen the tables."""
    op.execute(_COLUMNS)
