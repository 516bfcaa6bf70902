"""The archive of months: where retention moves them, what joins both places, and how a month is moved.

`archive.usage_history` is partitioned like the history itself, so that an old run id is found by one look at one month.
`usage_ever` is both: whoever sums up, or looks for a run, reads that. Nothing here deletes a row (L7).
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0016_archive"
down_revision = "0015_dead_letter_states"

_ARCHIVE: Final = """
CREATE SCHEMA IF NOT EXISTS archive;
CREATE TABLE archive.usage_history (LIKE usage_history INCLUDING ALL) PARTITION BY RANGE (run_id);
COMMENT ON TABLE archive.usage_history IS 'months that retention has moved here (see: billing partitions)';
SELECT billing_make_append_only('archive.usage_history');

CREATE VIEW usage_ever AS SELECT * FROM usage_history UNION ALL SELECT * FROM archive.usage_history;
COMMENT ON VIEW usage_ever IS 'all that was ever charged: the history, and the months that are in the archive';
"""

#: `adrift`: a month that is in neither, since somebody moved it by hand; `leaving`: DETACH ... CONCURRENTLY was killed.
_PARTITIONS: Final = """
CREATE VIEW usage_partition AS
WITH bounded AS (
    SELECT inhrelid AS partition, CASE WHEN inhdetachpending THEN 'leaving'
           WHEN inhparent = 'usage_history'::regclass THEN 'history' ELSE 'archive' END AS place,
           pg_get_expr(relpartbound, pg_class.oid) AS bound
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent IN ('usage_history'::regclass, 'archive.usage_history'::regclass)
), adrift AS (
    SELECT oid AS partition, (substring(relname FROM '[0-9]{4}_[0-9]{2}$') || '_01') AS month
    FROM pg_class
    WHERE relkind = 'r' AND NOT relispartition AND relname ~ '^usage_history_[0-9]{4}_(0[1-9]|1[0-2])$'
      AND relnamespace IN ('archive'::regnamespace,
                           (SELECT relnamespace FROM pg_class WHERE oid = 'usage_history'::regclass))
), placed AS (
    SELECT partition, place, substring(bound FROM 'FROM \\(''([0-9a-f-]{36})''\\)')::uuid AS first_id,
           substring(bound FROM 'TO \\(''([0-9a-f-]{36})''\\)')::uuid AS end_id
    FROM bounded
    UNION ALL
    SELECT partition, 'adrift', billing_run_id_bound(to_date(month, 'YYYY_MM_DD')::timestamp AT TIME ZONE 'UTC'),
           billing_run_id_bound((to_date(month, 'YYYY_MM_DD') + interval '1 month') AT TIME ZONE 'UTC')
    FROM adrift
)
SELECT partition::oid AS partition, relname::text AS name, nspname::text AS schema, place, first_id, end_id,
       EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND conname = 'billing_month') AS is_bounded,
       EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND conname = 'billing_month' AND convalidated)
           AS is_checked,
       reltuples::bigint AS estimated_rows
FROM placed JOIN pg_class ON pg_class.oid = placed.partition
     JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace;
COMMENT ON VIEW usage_partition IS
    'every part of the history, where it is, and which run ids it is for (null: without an end)';
"""

# Locks are taken in one order by all: the history, the archive, the month. 1651076098 is Guard.PARTITIONS.
_MOVES: Final = """
CREATE FUNCTION billing_bound_usage_month(month_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found usage_partition;
BEGIN
    PERFORM pg_advisory_xact_lock(1651076098, 0);
    SELECT * INTO STRICT found FROM usage_partition WHERE name = month_name;
    IF found.is_bounded THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT billing_month CHECK (run_id >= %L AND run_id < %L) NOT VALID',
                   found.partition::regclass, found.first_id, found.end_id);
    RETURN true;
END $$;
COMMENT ON FUNCTION billing_bound_usage_month(text) IS
    'promises the bounds of a month; once it is validated, no move of the month needs to read it';

CREATE FUNCTION billing_detach_usage_month(month_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found usage_partition;
BEGIN
    PERFORM pg_advisory_xact_lock(1651076098, 0);
    LOCK TABLE ONLY usage_history IN ACCESS EXCLUSIVE MODE;
    SELECT * INTO STRICT found FROM usage_partition WHERE name = month_name;
    IF found.place = 'archive' THEN
        RETURN false;
    ELSIF NOT found.is_checked OR found.place = 'leaving' THEN
        RAISE EXCEPTION '%: is not ready to be moved', month_name USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF found.place = 'history' THEN
        EXECUTE format('ALTER TABLE usage_history DETACH PARTITION %s', found.partition::regclass);
    END IF;
    PERFORM billing_make_append_only(found.partition::regclass);
    IF found.schema <> 'archive' THEN
        EXECUTE format('ALTER TABLE %s SET SCHEMA archive', found.partition::regclass);
    END IF;
    EXECUTE format('ALTER TABLE archive.usage_history ATTACH PARTITION archive.%I FOR VALUES FROM (%L) TO (%L)',
                   month_name, found.first_id, found.end_id);
    RETURN true;
END $$;
COMMENT ON FUNCTION billing_detach_usage_month(text) IS 'moves a month to the archive, whole or not';

CREATE FUNCTION billing_attach_usage_month(month_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found usage_partition;
    home name;
BEGIN
    PERFORM pg_advisory_xact_lock(1651076098, 0);
    LOCK TABLE ONLY usage_history IN SHARE UPDATE EXCLUSIVE MODE;
    SELECT * INTO STRICT found FROM usage_partition WHERE name = month_name;
    SELECT nspname INTO STRICT home FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
        WHERE pg_class.oid = 'usage_history'::regclass;
    IF found.place = 'history' THEN
        IF found.is_bounded THEN
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT billing_month', found.partition::regclass);
        END IF;
        RETURN false;
    ELSIF NOT found.is_checked OR found.place = 'leaving' THEN
        RAISE EXCEPTION '%: is not ready to be moved', month_name USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF found.place = 'archive' THEN
        EXECUTE format('ALTER TABLE archive.usage_history DETACH PARTITION %s', found.partition::regclass);
    END IF;
    IF found.schema <> home THEN
        EXECUTE format('ALTER TABLE %s SET SCHEMA %I', found.partition::regclass, home);
    END IF;
    PERFORM billing_make_append_only(found.partition::regclass);
    EXECUTE format('ALTER TABLE usage_history ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                   home, month_name, found.first_id, found.end_id);
    EXECUTE format('ALTER TABLE %I.%I DROP CONSTRAINT billing_month', home, month_name);
    RETURN true;
END $$;
COMMENT ON FUNCTION billing_attach_usage_month(text) IS 'moves a month back to the history, whole or not';
"""

#: A role that may not change the schema may have its months made, and nothing else: there the owner's rights end.
_MAKING: Final = """
ALTER FUNCTION billing_make_usage_months(date) RENAME TO billing_make_usage_months_until;
CREATE FUNCTION billing_make_usage_months(until date) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF until > current_date + interval '5 years' THEN
        RAISE EXCEPTION '%: months are made for five years at most', until USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY SELECT billing_make_usage_months_until(until);
END $$;
COMMENT ON FUNCTION billing_make_usage_months(date) IS
    'makes, with the owner''s rights, what billing_make_usage_months_until makes, for five years at most';
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION billing_make_usage_months(date) SET search_path = %I, pg_temp',
                   (SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
                    WHERE pg_class.oid = 'usage_history'::regclass));
END $$;
REVOKE EXECUTE ON FUNCTION billing_make_usage_months(date) FROM PUBLIC;
"""


def upgrade() -> None:
    """Make the archive, what reads both places, and the two moves."""
    for statements in (_ARCHIVE, _PARTITIONS, _MOVES, _MAKING):
        op.execute(statements)
