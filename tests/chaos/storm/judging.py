"""Holds what the servers say at rest to the book, law by law, and to billing's own reconciliation and doctor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from billing import admin
from tests.chaos.books import Charge
from tests.chaos.storm import laws
from tests.chaos.storm.book import Book, Law, Row
from tests.chaos.storm.invoicing import invoice
from tests.chaos.storm.rest import ALL_ENDED, NO_HOLD
from tests.chaos.storm.site import LEASE_SECONDS, SHARDS, SWEEP_SECONDS, Site
from tests.chaos.storm.snapshots import Snapshots

_ROWS: Final = """
    SELECT run_id::text, line, settlement_id, late, client_id, correlation_id, sku, quantity, credits,
           floor(extract(epoch FROM occurred_at) * 1000)::bigint
    FROM usage_history ORDER BY run_id, line
"""
_WHOLE: Final = """
    SELECT 'usage_history ' || row::text FROM usage_history AS row
    UNION ALL SELECT 'ledger_entry ' || row::text FROM ledger_entry AS row
"""
#: What L5 allows beyond a lease and a sweep: a lease in which nothing expires after shards were not swept, twice the
#: fifteen seconds after which PostgreSQL is asked again whether a charge without a hold is known, and a busy machine.
ORPHAN_SECONDS: Final = 10 * LEASE_SECONDS
#: A look at the tables that waits for longer is given up (L9).
_LOOK: Final = "-c statement_timeout=30000"
_DOCTOR_SECONDS: Final = 180
#: Discrepancies of one law that the report names.
_NAMED: Final = 5


def rows(site: Site) -> list[Row]:
    """Return the usage history."""
    with psycopg.connect(site.fleet.settings.database_url, connect_timeout=10) as connection:
        found = connection.execute(_ROWS).fetchall()
    return [
        Row(
            run_id=run,
            line=line,
            settlement_id=settlement,
            late=late,
            occurred_ms=occurred_ms,
            charge=Charge(client_id=client, correlation_id=key, sku=sku, quantity=quantity, credits=credits_),
        )
        for run, line, settlement, late, client, key, sku, quantity, credits_, occurred_ms in found
    ]


def appended(site: Site) -> list[str]:
    """Return every row of the tables that are only added to, with all its columns, as text."""
    with psycopg.connect(site.fleet.settings.database_url, connect_timeout=10, options=_LOOK) as connection:
        return [text for (text,) in connection.execute(_WHOLE)]


def judge(site: Site, book: Book, snapshots: Snapshots, rest: Mapping[str, float]) -> list[Law]:
    """Return every law with what was examined; `rest`: after how many seconds each part of it was there."""
    history = rows(site)
    owed = {client_id: balance.owed for client_id, balance in site.fleet.buckets.balances(book.clients).items()}
    return [
        laws.ceiling(book, history, owed),
        _balances(site, book, history),
        book.charge(history),
        book.failures(),
        book.states(history),
        laws.late(book, history, LEASE_SECONDS * 1_000),
        _orphans(site, book, rest),
        _log_is_truth(site, book, history),
        laws.append_only(snapshots.seen, appended(site), snapshots.looks),
        invoice(site, _charged(history)),
        book.lost_work(),
        book.isolation(),
        _reconciled(site),
        _doctor(site),
    ]


def _charged(history: Sequence[Row]) -> Counter[str]:
    charged: Counter[str] = Counter()
    for row in history:
        charged[row.charge.client_id] += row.charge.credits
    return charged


def _balances(site: Site, book: Book, history: Sequence[Row]) -> Law:
    """L2, on the bucket's own numbers and grant by grant."""
    broken = []
    balances = site.fleet.buckets.balances(book.clients)
    for client_id, balance in balances.items():
        if balance.granted + balance.owed != balance.available + balance.held + balance.spent:
            broken.append(f"{client_id}: {balance}")
        if balance.granted != book.granted[client_id]:
            broken.append(f"{client_id}: granted {balance.granted}, the book says {book.granted[client_id]}")
        broken += [
            f"{client_id}: {grant}"
            for grant in balance.grants
            if grant.granted != grant.available + grant.held + grant.spent + grant.repaid
        ]
    examined = len(balances)
    return Law(law="L2 conservation", says="granted + owed = the rest", examined=examined, violations=broken)


def _orphans(site: Site, book: Book, rest: Mapping[str, float]) -> Law:
    holds = [hold for shard in range(SHARDS) for hold in site.fleet.buckets.held(None, shard)]
    seconds = rest[NO_HOLD] - rest[ALL_ENDED] if NO_HOLD in rest else None
    bound = LEASE_SECONDS + SWEEP_SECONDS + ORPHAN_SECONDS
    return laws.orphans([f"{hold.client_id}: {hold}" for hold in holds], seconds, bound, len(book.work))


def _log_is_truth(site: Site, book: Book, history: Sequence[Row]) -> Law:
    """L6: every bucket has what the book says, to the unit: granted, less what was charged."""
    broken, charged = [], _charged(history)
    balances = site.fleet.buckets.balances(book.clients)
    for client_id in book.clients:
        balance = balances.get(client_id)
        if balance is None:
            broken.append(f"{client_id}: has no bucket")
            continue
        left = book.granted[client_id] - charged[client_id]
        if (balance.available - balance.owed, balance.held, balance.spent) != (left, 0, charged[client_id]):
            broken.append(f"{client_id}: must have {left} left and {charged[client_id]} spent: {balance}")
    examined = len(book.clients)
    return Law(law="L6 log is truth", says="bucket = granted - charged", examined=examined, violations=broken)


def _reconciled(site: Site) -> Law:
    report = admin.reconcile(site.fleet.settings)
    broken = [found.text for found in report.discrepancies[:_NAMED]]
    broken += [f"{law.law}: {law.text}" for law in report.laws if law.not_compared]
    says = f"billing reconcile: {len(report.laws)} laws"
    return Law(law="reconcile", says=says, examined=report.clients, violations=broken)


def _doctor(site: Site) -> Law:
    asked = site.fleet.run_module("doctor", "billing.cli.main", "-A", site.fleet.module, "doctor", "--json")
    if asked.wait(_DOCTOR_SECONDS) not in (0, 1):
        return Law(law="doctor", says="billing doctor", examined=0, violations=asked.last_lines())
    said = asked.log.read_text(encoding="utf-8")
    findings: list[dict[str, Any]] = json.loads(said[said.index("[") :])
    broken = [f"{one['part']}: {one['seen']}" for one in findings if one["verdict"] == "fail"]
    return Law(law="doctor", says="billing doctor: nothing fails", examined=len(findings), violations=broken)
