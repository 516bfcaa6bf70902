"""Holds what the servers say at rest to the book, law by law, and to billing's own reconciliation and doctor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from billing import admin
from tests.chaos.books import Charge
from tests.chaos.storm.book import Book, Law, Row
from tests.chaos.storm.invoicing import invoice
from tests.chaos.storm.site import SHARDS, Site

_ROWS: Final = """
    SELECT run_id::text, line, settlement_id, late, client_id, correlation_id, sku, quantity, credits
    FROM usage_history ORDER BY run_id, line
"""
_LEDGER: Final = "SELECT * FROM ledger_entry ORDER BY 1"
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
            charge=Charge(client_id=client, correlation_id=key, sku=sku, quantity=quantity, credits=credits_),
        )
        for run, line, settlement, late, client, key, sku, quantity, credits_ in found
    ]


def ledger(site: Site) -> list[tuple[object, ...]]:
    """Return the entries of the ledger."""
    with psycopg.connect(site.fleet.settings.database_url, connect_timeout=10) as connection:
        return connection.execute(_LEDGER).fetchall()


def judge(site: Site, book: Book, before: tuple[Sequence[Row], Sequence[object]]) -> list[Law]:
    """Return every law with what was examined; `before`: history and ledger as they were once during the storm."""
    history = rows(site)
    return [
        book.ceiling(history),
        _balances(site, book, history),
        book.charge(history),
        book.states(history),
        _orphans(site, book),
        _log_is_truth(site, book, history),
        _append_only(site, history, before),
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


def _orphans(site: Site, book: Book) -> Law:
    holds = [hold for shard in range(SHARDS) for hold in site.fleet.buckets.held(None, shard)]
    broken = [f"{hold.client_id}: {hold}" for hold in holds]
    examined = len(book.work)
    return Law(law="L5 no orphan", says="no hold at rest", examined=examined, violations=broken)


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


def _append_only(site: Site, history: Sequence[Row], before: tuple[Sequence[Row], Sequence[object]]) -> Law:
    now, entries = set(history), {str(entry) for entry in ledger(site)}
    broken = [f"history: {row}" for row in before[0] if row not in now]
    broken += [f"ledger: {entry}" for entry in before[1] if str(entry) not in entries]
    examined = len(before[0]) + len(before[1])
    return Law(law="L7 append only", says="what was there is there", examined=examined, violations=broken)


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
