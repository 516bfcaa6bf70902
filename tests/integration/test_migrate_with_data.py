"""A database that an older version has written to is migrated with its data, in a schema of its own too."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command
from sqlalchemy import text

from billing import admin
from billing.connections import postgres
from billing.core.settings import Settings
from billing.reconciliation.reading import invoice_facts, log_facts
from billing.schema import migrate as schema
from tests.integration.archiving import archive

pytestmark = pytest.mark.integration

_OLD = """
INSERT INTO client (client_id, shard) VALUES ('acme', 1);
INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku,
                           quantity, credits, grants, epoch, price_version, occurred_at)
SELECT run, 0, 's', 'acme', 'a', 'a', 'task', 1, 'page', 1, 10, '[{"grant": 0, "credits": 10}]', 1, 1,
       timestamptz '2026-01-01 00:00Z'
FROM unnest(ARRAY[billing_run_id_bound('2020-01-01Z'), billing_run_id_bound(now())]) AS run;
INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity, planned)
VALUES ('acme', 'page', '2026-01-01 00:00Z', 20, 2, 15);
INSERT INTO grant_spent (client_id, grant_id, credits) VALUES ('acme', 0, 20);
INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', 'cus');
INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, generation,
                              event_at, identifier, planned_at, state)
VALUES ('acme', 'cus', 'meter', '2026-01-01Z', '2026-02-01Z', 15, 1, '2026-01-02Z', 'b1-x', '2026-01-02Z', 'confirmed');
INSERT INTO stripe_increment_part (increment_id, sku, hour, credits_from, credits_to)
SELECT increment_id, 'page', '2026-01-01 00:00Z', 0, 15 FROM stripe_increment;
INSERT INTO dead_letter (digest, body, reason, queue, received_at)
VALUES (sha256('x'), 'x', 'because', 'q', '2026-01-01Z');
"""


@pytest.mark.parametrize("home", ["public", "billing"])
def test_given_a_database_of_an_older_version_with_data_when_migrated_then_nothing_of_it_changes(
    database: Settings, home: str
) -> None:
    """What was planned stays planned, letters are open, and the books hold before and after a month has moved."""
    with psycopg.connect(database.database_url, autocommit=True) as session:
        session.execute("DROP SCHEMA public, archive CASCADE")
        session.execute(f"CREATE SCHEMA {home}".encode())
        session.execute(
            b"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = "
            + home.encode()
            + b"', current_database()); END $$"
        )
    engine = postgres.engine(database, pool_size=1)
    with engine.begin() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0014_usage_modes")
        connection.execute(text("SELECT billing_make_usage_months((now() + interval '1 month')::date)"))
        connection.execute(text(_OLD))

    assert schema.migrate(database)[:4] == [
        "0015_dead_letter_states",
        "0016_archive",
        "0017_usage_corrections",
        "0018_usage_root_index",
    ]

    def held() -> None:
        with engine.connect() as connection:
            log = log_facts(connection, ["acme"])
            facts = invoice_facts(connection, ["acme"], log)["acme"]
        assert (log["acme"].rows, log["acme"].credits, log["acme"].differing_rollups) == (2, 20, ())
        assert (facts.credits, facts.planned, facts.logged) == (20, 15, 20)
        assert (facts.differing_rows, facts.differing_increments) == ((), ())

    held()
    with engine.begin() as connection:
        letters = connection.execute(text("SELECT state, refusals, refused_at = received_at FROM dead_letter")).all()
        assert letters == [("open", 1, True)]
        connection.execute(text("DELETE FROM stripe_customer"))
    months = [part for part in admin.partitions(database).partitions if part.is_month and part.rows]
    assert [part.schema for part in months] == [home]
    for part in months:
        assert part.start is not None
        assert archive(database, part.start).place == "archive"
        held()
        assert admin.attach_month(database, part.month).place == "history"
        held()
    admin.close(database)
    engine.dispose()
