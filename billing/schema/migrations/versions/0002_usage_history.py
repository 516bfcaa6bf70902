"""The usage history: append-only (L7), partitioned by run id, so that its key is unique for ever (L3).

There is no default partition: rows in one would block the making of every month they belong to. The ends are
covered for good by `early` (before the first month) and `legacy` (runs of senders without the library, whose 48
time bits are all ones); `billing_make_usage_months` makes the months between, ahead of time.
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0002_usage_history"
down_revision = "0001_catalog_and_ledger"

_HISTORY: Final = """
CREATE TABLE usage_history (
    run_id uuid NOT NULL,
    line smallint NOT NULL CONSTRAINT usage_history_line_check CHECK (line >= 0),
    settlement_id text NOT NULL,
    client_id text NOT NULL,
    correlation_id text NOT NULL,
    root_id text NOT NULL,
    task text NOT NULL,
    attempt integer NOT NULL,
    sku text NOT NULL,
    quantity bigint NOT NULL,
    credits bigint NOT NULL,
    grants jsonb NOT NULL,
    epoch integer NOT NULL,
    price_version integer NOT NULL,
    late boolean NOT NULL DEFAULT false,
    submitted_at timestamptz,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    corrects uuid,
    corrects_line smallint,
    CONSTRAINT usage_history_amounts_check CHECK (corrects IS NOT NULL OR (quantity >= 0 AND credits >= 0)),
    PRIMARY KEY (run_id, line)
) PARTITION BY RANGE (run_id);
CREATE INDEX usage_history_client_id_occurred_at_idx ON usage_history (client_id, occurred_at);
CREATE INDEX usage_history_correlation_id_idx ON usage_history (correlation_id);
SELECT billing_make_append_only('usage_history');
"""

_BOUNDS: Final = """
CREATE FUNCTION billing_run_id_bound(instant timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM instant) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;
COMMENT ON FUNCTION billing_run_id_bound(timestamptz) IS
    'the smallest run id (UUIDv7) of an instant: its milliseconds as the 48 time bits, all else zero';
"""

# A table that is attached takes SHARE UPDATE EXCLUSIVE on the history; CREATE TABLE ... PARTITION OF would take
# ACCESS EXCLUSIVE and stop the consumers. 1651076098 is billing.schema.advisory.Guard.PARTITIONS.
_MONTHS: Final = """
CREATE FUNCTION billing_make_usage_partition(partition text, bounds text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1651076098, 0);
    IF to_regclass(quote_ident(partition)) IS NOT NULL
            OR to_regclass('archive.' || quote_ident(partition)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_history INCLUDING ALL)', partition);
    PERFORM billing_make_append_only(quote_ident(partition)::regclass);
    EXECUTE format('ALTER TABLE usage_history ATTACH PARTITION %I FOR VALUES %s', partition, bounds);
    RETURN true;
END $$;

CREATE FUNCTION billing_make_usage_month(month date) RETURNS boolean LANGUAGE sql AS $$
    SELECT billing_make_usage_partition(
        'usage_history_' || to_char(month, 'YYYY_MM'),
        format('FROM (%L) TO (%L)',
               billing_run_id_bound(date_trunc('month', month::timestamp) AT TIME ZONE 'UTC'),
               billing_run_id_bound((date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC')))
$$;

CREATE FUNCTION billing_make_usage_months(until date) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    early uuid;
    month date;
    partition regclass;
BEGIN
    SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO \\(''([0-9a-f-]{36})''\\)')::uuid INTO STRICT early
        FROM pg_class WHERE oid = 'usage_history_early'::regclass;
    FOR month IN
        SELECT generate_series(timestamp 'epoch' + ('x' || left(replace(early::text, '-', ''), 12))::bit(48)::bigint
                               * interval '1 millisecond', until::timestamp, interval '1 month')
    LOOP
        IF billing_make_usage_month(month) THEN
            RETURN NEXT 'usage_history_' || to_char(month, 'YYYY_MM');
        END IF;
    END LOOP;
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'usage_history'::regclass ORDER BY 1
    LOOP
        PERFORM billing_make_append_only(partition);
    END LOOP;
END $$;
COMMENT ON FUNCTION billing_make_usage_months(date) IS
    'makes every month from the end of the early partition to the given one that is missing, and guards all partitions';
"""

_ENDS: Final = """
SELECT billing_make_usage_partition('usage_history_early', format('FROM (MINVALUE) TO (%L)',
    billing_run_id_bound((date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month') AT TIME ZONE 'UTC')));
SELECT billing_make_usage_partition('usage_history_legacy',
    'FROM (''ffffffff-ffff-0000-0000-000000000000'') TO (MAXVALUE)');
"""


def upgrade() -> None:
    """Make the history, the functions that extend it, and its two permanent partitions."""
    for statements in (_HISTORY, _BOUNDS, _MONTHS, _ENDS):
        op.execute(statements)
