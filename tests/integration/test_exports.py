"""The export of a client: all that PostgreSQL has of it and of nobody else, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from billing import admin
from billing.admin.exports import EXPORTED, LEFT_OUT
from billing.connections import postgres
from billing.core.settings import Settings
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.receipts import write_export
from tests.receipts import plan
from tests.terminal import Terminal
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

#: Tables whose rows are a client's by another row.
OF_INCREMENT = ("stripe_increment_part", "stripe_generation", "stripe_attempt", "stripe_resolution")
OF_CUSTOMER = ("stripe_period", "stripe_period_read")
SECRET = "whsec_do-not-tell"


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read an export: file → rows."""
    with zipfile.ZipFile(path) as made:
        assert made.testzip() is None
        names = [name for name in made.namelist() if name.endswith(".jsonl")]
        return {name: [json.loads(line) for line in made.read(name).splitlines()] for name in names}


def contents(path: Path) -> Any:
    """Read what an export says of itself."""
    with zipfile.ZipFile(path) as made:
        return json.loads(made.read("contents.json"))


@pytest.fixture
def known(shop: Terminal) -> Terminal:
    """Open a terminal on the clients acme and bolt, both with usage, a webhook, an increment, and repairs."""
    settings = Settings(database_url=shop.environment["BILLING_DATABASE_URL"])
    assert shop.type("client", "add", "bolt").code == 0
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    line = paid_line("page", 3, [(1, 10), (0, 5)])
    log.write([delivered(usage_event(client, lines=[line])) for client in ("acme", "bolt") for _ in range(3)])
    log.close()
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        for client in ("acme", "bolt"):
            plan(session, client, state="confirmed")
            session.execute(
                "INSERT INTO webhook (client_id, url, secret) VALUES (%s, 'https://a.test', %s)", [client, SECRET]
            )
            session.execute(
                "INSERT INTO repair (run_id, client_id, epoch, action, credits, restored, found, made_by)"
                " VALUES (1, %s, 1, 'rebuild', 0, 0, '{}', 'ruth@desk')",
                [client],
            )
            session.execute(
                "INSERT INTO parked_task (run_id, client_id, task, task_id, sku, credits, available, body,"
                " content_type, content_encoding,"
                " headers, properties, exchange, routing_key, times, parked_at, expires_at)"
                " VALUES (gen_random_uuid(), %s, 't', 'i', 'page', 1, 0, '\\x5b5d', 'application/json', 'utf-8', '{}',"
                " '{}', '', 'q', 1, now(), now())",
                [client],
            )
        session.execute(
            "INSERT INTO stripe_attempt (increment_id, attempt, idempotency_key)"
            " SELECT increment_id, 1, client_id FROM stripe_increment"
        )
        session.execute(
            "INSERT INTO stripe_resolution (increment_id, generation, resolved_as, was, reason)"
            " SELECT increment_id, 1, 'confirmed', 'quarantined', client_id FROM stripe_increment"
        )
        session.execute(
            "INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, read_at)"
            " SELECT customer_id, event_name, period_start, period_end, now() FROM stripe_increment"
        )
        session.execute("INSERT INTO stripe_period_read SELECT customer_id, now(), client_id FROM stripe_increment")
    return shop


def test_every_table_is_exported_or_left_out_for_a_reason(session: psycopg.Connection[Any]) -> None:
    """Given the database as it is migrated, then no table is in neither list, and none with a client is left out."""
    tables = session.execute("""
        SELECT c.relname, EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'client_id')
        FROM pg_class AS c
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND relname <> 'billing_schema_version'""").fetchall()
    assert {name for name, _ in tables} == EXPORTED.keys() | LEFT_OUT.keys()
    assert EXPORTED.keys() & LEFT_OUT.keys() == set()
    assert {name for name, has_client in tables if has_client} <= EXPORTED.keys()


def test_an_export_has_all_of_one_client_and_nothing_of_another(known: Terminal, tmp_path: Path) -> None:
    """Given two clients alike, then one's export has as many rows as its tables, and none that names the other."""
    path = tmp_path / "new" / "acme.zip"
    answer = known.type("client", "export", "acme", "--output", str(path))
    assert answer.code == 0, answer
    found = read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(found) == [f"{name}.jsonl" for name in EXPORTED]
    rows = sum(map(len, found.values()))
    assert answer.out == f"{path}: {rows:,} rows in {len(EXPORTED)} files\n"

    with psycopg.connect(known.environment["BILLING_DATABASE_URL"]) as session:
        for name in EXPORTED:
            mine = "client_id = 'acme'"
            if name in OF_INCREMENT:
                mine = "increment_id = 1"
            elif name in OF_CUSTOMER:
                mine = "customer_id = (SELECT customer_id FROM stripe_increment WHERE increment_id = 1)"
            count = session.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE {}").format(sql.Identifier(name), sql.SQL(mine))
            )
            assert count.fetchone() == (len(found[f"{name}.jsonl"]),), name
    for name in (
        "client",
        "usage_history",
        "usage_rollup",
        "grant_spent",
        "ledger_entry",
        "webhook",
        "repair",
        "parked_task",
    ):
        assert found[f"{name}.jsonl"], name
    assert {len(found[f"{name}.jsonl"]) for name in (*OF_INCREMENT, *OF_CUSTOMER)} == {1}
    with zipfile.ZipFile(path) as made:
        everything = b"".join(made.read(name) for name in made.namelist()).decode()
    assert "bolt" not in everything
    assert SECRET not in everything
    assert "ruth" not in everything

    line = found["usage_history.jsonl"][0]
    assert (line["client_id"], line["quantity"], line["credits"]) == ("acme", 3, 15)
    assert line["grants"] == [{"grant": 1, "credits": 10}, {"grant": 0, "credits": 5}]
    assert line["occurred_at"].endswith("+00:00")
    assert found["parked_task.jsonl"][0]["body"] == "\\x5b5d"
    listed = contents(path)
    assert {entry["file"]: entry["rows"] for entry in listed["files"]} == {name: len(r) for name, r in found.items()}
    assert "dead_letter" in listed["not_in_it"]
    assert listed["client_id"] == "acme"


def test_a_month_out_of_service_is_exported_too(known: Terminal, tmp_path: Path) -> None:
    """Given the month of all usage detached into the archive, then its lines are exported as ever."""
    settings = Settings(database_url=known.environment["BILLING_DATABASE_URL"])
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        (partition,) = session.execute("SELECT DISTINCT tableoid::regclass::text FROM usage_history").fetchone() or (
            "",
        )
        session.execute("SELECT billing_bound_usage_month(%s)", [partition])
        session.execute(f"ALTER TABLE {partition} VALIDATE CONSTRAINT billing_month".encode())
        session.execute("SELECT billing_detach_usage_month(%s)", [partition])
        assert session.execute("SELECT count(*) FROM usage_history").fetchone() == (0,)
    write_export(settings, "acme", tmp_path / "acme.zip")
    admin.close(settings)
    found = read(tmp_path / "acme.zip")
    assert [row["client_id"] for row in found["usage_history.jsonl"]] == ["acme"] * 3


def test_an_export_that_breaks_off_leaves_what_was_there(
    known: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an older export, when a newer one fails on its way, then the older one stands, and nothing lies about."""
    path = tmp_path / "acme.zip"
    path.write_text("older")
    known.type("client", "export", "nobody", "--output", str(path)).refused(2, "nobody")
    known.type("client", "export", "acme", "--output", str(tmp_path)).refused(2, str(tmp_path))
    settings = Settings(database_url=known.environment["BILLING_DATABASE_URL"])

    def breaks_off(_: int) -> None:
        message = "the disk is full"
        raise OSError(message)

    monkeypatch.setattr(os, "fsync", breaks_off)
    with pytest.raises(Exception, match="the disk is full"):
        write_export(settings, "acme", path)
    admin.close(settings)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_is_of_one_instant_and_says_how_far_it_is(known: Terminal, tmp_path: Path) -> None:
    """Given usage that comes while it is written, then none of it is there; a thousand rows are told."""
    settings = Settings(database_url=known.environment["BILLING_DATABASE_URL"])
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    log.write([delivered(usage_event("acme")) for _ in range(2_000)])
    told: list[int] = []

    def tell(rows: int) -> None:
        told.append(rows)
        log.write([delivered(usage_event("acme"))])

    written = write_export(settings, "acme", tmp_path / "acme.zip", tell=tell)
    log.close()
    admin.close(settings)
    assert len(told) == 2
    assert written.rows["usage_history.jsonl"] == 2_003
    assert sum(row["credits"] for row in read(tmp_path / "acme.zip")["grant_spent.jsonl"]) == 2_000 * 10 + 3 * 15
    assert dataclasses.asdict(written)["path"] == tmp_path / "acme.zip"
