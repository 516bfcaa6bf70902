"""The place from which Stripe is told: which tables, on which server, so that a restored copy of them is noticed."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0023_stripe_books"
down_revision = "0022_watching"

_BOOKS: Final = """
CREATE TABLE stripe_books (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT stripe_books_one_check CHECK (one),
    relation bigint NOT NULL,
    server text NOT NULL DEFAULT '',
    doubted_at timestamptz,
    adopted_at timestamptz,
    reason text NOT NULL DEFAULT ''
);
COMMENT ON COLUMN stripe_books.relation IS 'the number of this table, which a restore from a dump changes';
COMMENT ON COLUMN stripe_books.server IS 'the system identifier of the server; empty where it could not be read';
COMMENT ON COLUMN stripe_books.doubted_at IS 'when these were first seen not to be the ones; null: they are';
COMMENT ON COLUMN stripe_books.adopted_at IS 'when somebody last took them for the ones, after a restore';
INSERT INTO stripe_books (relation) VALUES (CAST('stripe_books'::regclass::oid AS bigint));
DO $$
BEGIN
    UPDATE stripe_books SET server = (SELECT CAST(system_identifier AS text) FROM pg_control_system());
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $$;
"""


def upgrade() -> None:
    """Make the table, with its one row."""
    op.execute(_BOOKS)
