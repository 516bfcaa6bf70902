"""Clients, prices, grants and the credit ledger; `price` and `ledger_entry` refuse every change (L7)."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0001_catalog_and_ledger"
down_revision = None

_CLIENT: Final = """
CREATE TABLE client (
    client_id text PRIMARY KEY,
    shard integer NOT NULL,
    epoch integer NOT NULL DEFAULT 1 CONSTRAINT client_epoch_check CHECK (epoch >= 1),
    state text NOT NULL DEFAULT 'active',
    overdraft_limit bigint NOT NULL DEFAULT 0 CONSTRAINT client_overdraft_limit_check CHECK (overdraft_limit >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX client_shard_idx ON client (shard);
"""

_PRICE: Final = """
CREATE TABLE price (
    sku text NOT NULL,
    version integer NOT NULL CONSTRAINT price_version_key UNIQUE,
    credits_per_unit bigint NOT NULL CONSTRAINT price_credits_per_unit_check CHECK (credits_per_unit >= 0),
    unit text NOT NULL,
    effective_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sku, version),
    CONSTRAINT price_sku_effective_at_key UNIQUE (sku, effective_at)
);
"""

_GRANT: Final = """
CREATE TABLE credit_grant (
    grant_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    kind text NOT NULL DEFAULT 'paid',
    credits bigint NOT NULL CONSTRAINT credit_grant_credits_check CHECK (credits > 0),
    priority integer NOT NULL DEFAULT 100,
    expires_at timestamptz,
    key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz,
    CONSTRAINT credit_grant_client_id_key_key UNIQUE (client_id, key)
);
CREATE INDEX credit_grant_unapplied_idx ON credit_grant (grant_id) WHERE applied_at IS NULL;
COMMENT ON COLUMN credit_grant.applied_at IS 'when the bucket in Redis got it; null while it has not';
"""

_LEDGER: Final = """
CREATE TABLE ledger_entry (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    grant_id bigint REFERENCES credit_grant (grant_id),
    kind text NOT NULL,
    credits bigint NOT NULL,
    reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ledger_entry_client_id_entry_id_idx ON ledger_entry (client_id, entry_id);
"""

# Statement-level, so that a statement which matches no row is refused too; ENABLE ALWAYS, so that
# session_replication_role = replica does not switch it off. No role is exempt, not even the owner.
_APPEND_ONLY: Final = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%: % is refused: the table is append-only, a correction is a new row', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END $$;

CREATE FUNCTION billing_make_append_only(guarded regclass) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_trigger
               WHERE tgrelid = guarded AND tgname = 'billing_append_only' AND tgenabled = 'A') THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER billing_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change()', guarded);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER billing_append_only', guarded);
    RETURN true;
END $$;

SELECT billing_make_append_only('price'), billing_make_append_only('ledger_entry');
"""


def upgrade() -> None:
    """Make the tables in the order of their references, then guard the append-only ones."""
    for statements in (_CLIENT, _PRICE, _GRANT, _LEDGER, _APPEND_ONLY):
        op.execute(statements)
