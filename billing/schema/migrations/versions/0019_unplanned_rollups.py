"""Rollups that a batch touches again stay where they are: what no increment carries is a column of its own.

PostgreSQL moves a row's new version into all of its indexes when a column changes that any index names, its condition
included. `credits` changed in every batch and was named by the index of what is to be planned, so that every update of
every rollup wrote to both indexes. `unplanned` changes twice per sync; what is left of each page keeps the versions
beside each other (heap-only tuples). The table is written anew, which takes about ten seconds per ten million rows.
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0019_unplanned_rollups"
down_revision = "0018_usage_root_index"

_UNPLANNED: Final = """
ALTER TABLE usage_rollup SET (fillfactor = 90);
ALTER TABLE usage_rollup ADD COLUMN unplanned boolean NOT NULL
    GENERATED ALWAYS AS (credits > planned OR returned > returned_planned) STORED;
COMMENT ON COLUMN usage_rollup.unplanned IS 'there is something that no increment carries yet';
DROP INDEX usage_rollup_unplanned_idx;
CREATE INDEX usage_rollup_unplanned_idx ON usage_rollup (client_id, sku, hour) WHERE unplanned;
"""


def upgrade() -> None:
    """Add the column, and have the index name it alone."""
    op.execute(_UNPLANNED)
