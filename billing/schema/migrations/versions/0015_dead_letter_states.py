"""What becomes of a dead letter: it is open, replayed or discarded. The letter itself stays as it came (L7).

Nothing of it is ever deleted, and what came in never changes: only how often and why it was refused last, and its
state, do.
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0015_dead_letter_states"
down_revision = "0014_usage_modes"

_STATES: Final = """
ALTER TABLE dead_letter
    ADD COLUMN refusals integer NOT NULL DEFAULT 1,
    ADD COLUMN refused_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN state text NOT NULL DEFAULT 'open' CONSTRAINT dead_letter_state_check
        CHECK (state IN ('open', 'replayed', 'discarded')),
    ADD COLUMN ended_at timestamptz,
    ADD COLUMN remark text NOT NULL DEFAULT '',
    ADD CONSTRAINT dead_letter_ended_check CHECK ((state = 'open') = (ended_at IS NULL));
UPDATE dead_letter SET refused_at = received_at;
CREATE INDEX dead_letter_open_idx ON dead_letter (letter_id) WHERE state = 'open';
COMMENT ON COLUMN dead_letter.reason IS 'why it was refused, as was said last';
COMMENT ON COLUMN dead_letter.received_at IS 'when it was refused first';
COMMENT ON COLUMN dead_letter.refusals IS 'how often it was refused, by consumers and by replays';
COMMENT ON COLUMN dead_letter.refused_at IS 'when it was refused last';
COMMENT ON COLUMN dead_letter.ended_at IS 'when it was replayed or discarded; null: it is open';
COMMENT ON COLUMN dead_letter.remark IS 'replayed: what became of it; discarded: why';
"""

_KEPT: Final = """
CREATE FUNCTION billing_keep_letter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%: % is refused: a letter is kept as it came, only its state changes', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END $$;
CREATE TRIGGER billing_keep_letter BEFORE DELETE OR TRUNCATE OR UPDATE OF letter_id, digest, body, queue, received_at
    ON dead_letter FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_letter();
ALTER TABLE dead_letter ENABLE ALWAYS TRIGGER billing_keep_letter;
"""


def upgrade() -> None:
    """Give letters a state, and guard what came in."""
    op.execute(_STATES)
    op.execute(_KEPT)
