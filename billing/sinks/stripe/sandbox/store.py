"""The stand-in's memory in SQLite: customers, meters, saved answers; events and documents have rooms of their own.

Guarantee: what `transaction` committed is there after a SIGKILL when there is a file; without one it is gone with the
process. One process, one thread: the server's loop.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from billing.core.errors import Fatal
from billing.sinks.stripe.sandbox import documents, event_log
from billing.sinks.stripe.sandbox.records import Customer, Meter, SavedReply

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS customer (
    id TEXT PRIMARY KEY, created INTEGER NOT NULL, deleted INTEGER NOT NULL, details TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS meter (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, event_name TEXT NOT NULL, status TEXT NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, deactivated_at INTEGER, details TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reply (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    headers TEXT NOT NULL, saved_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS control (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
METERS: Final = "SELECT id, event_name, status, created, updated, deactivated_at, details FROM meter ORDER BY seq DESC"
#: A simulation makes millions of answers.
PRUNED_EVERY: Final = 20_000
TABLES: Final = {"customer", "meter", "event", "reply", "control", "document"}
#: Those of a file that an earlier version made; the others are added to it.
FIRST_TABLES: Final = TABLES - {"document"}
TABLES_THERE: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
EMPTY: Final = "; ".join(f"DELETE FROM {table}" for table in sorted(TABLES))  # noqa: S608 - our own names


class Store:
    """All that the stand-in knows. Reads see the transaction that is open."""

    def __init__(self, file: Path | None) -> None:
        try:
            self._connection = sqlite3.connect(file or ":memory:", isolation_level=None)
            found = {name for (name,) in self._connection.execute(TABLES_THERE)}
            if found and not FIRST_TABLES <= found <= TABLES:
                self._connection.close()
                # A reset empties tables that may have the same names as ours.
                raise Fatal(f"--data: {str(file)!r}: is another program's database, not the stand-in's memory")
            # NORMAL: an answered call outlives the process; that it outlives the machine is nobody's claim here.
            self._connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; BEGIN;"
                + SCHEMA
                + event_log.SCHEMA
                + documents.SCHEMA
                + "COMMIT"
            )
        except sqlite3.Error as error:
            raise Fatal(f"--data: {str(file)!r}: cannot be used as the stand-in's memory: {error}") from None
        self.documents = documents.Documents(self._connection)
        self.events = event_log.EventLog(self._connection)
        self._file, self._saved = file, 0
        self._meters: list[Meter] | None = None
        self._emptied: list[Callable[[], None]] = [self.documents.forget, self._forget_meters]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def on_emptied(self, forget: Callable[[], None]) -> None:
        """Call this when everything was forgotten."""
        self._emptied.append(forget)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        self.documents.begin()
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            self.documents.undo()
            self._forget_meters()
            raise
        self._connection.execute("COMMIT")

    def empty(self) -> None:
        """Forget everything."""
        self._connection.executescript(EMPTY)
        for forget in self._emptied:
            forget()

    def add_customer(self, customer: Customer) -> None:
        """Insert a customer."""
        row = (customer.id, customer.created, customer.deleted, json.dumps(customer.details))
        self._connection.execute("INSERT INTO customer VALUES (?, ?, ?, ?)", row)

    def change_customer(self, customer: Customer) -> None:
        """Keep a customer's new details, or that it was deleted; Stripe keeps its id then, too."""
        sql = "UPDATE customer SET deleted = ?, details = ? WHERE id = ?"
        self._connection.execute(sql, (customer.deleted, json.dumps(customer.details), customer.id))

    def customer(self, customer_id: str) -> Customer | None:
        """Return a customer."""
        row = self._one("SELECT id, created, deleted, details FROM customer WHERE id = ?", customer_id)
        return row and _customer(row)

    def customers(self, email: str | None) -> list[Customer]:
        """Return the customers that are not deleted, those of one email address or all, newest first."""
        sql = (
            "SELECT id, created, deleted, details FROM customer WHERE NOT deleted "
            "AND (? IS NULL OR json_extract(details, '$.email') = ?) ORDER BY rowid DESC"
        )
        return [_customer(row) for row in self._connection.execute(sql, (email, email))]

    def add_meter(self, meter: Meter) -> None:
        """Insert a meter."""
        sql = "INSERT INTO meter (id, event_name, status, created, updated, details) VALUES (?, ?, ?, ?, ?, ?)"
        row = (meter.id, meter.event_name, meter.status, meter.created, meter.updated, json.dumps(meter.details))
        self._connection.execute(sql, row)
        self._meters = None

    def set_meter_status(self, meter_id: str, status: str, now: int) -> None:
        """Activate or deactivate a meter."""
        sql = "UPDATE meter SET status = ?, updated = ?, deactivated_at = ? WHERE id = ?"
        self._connection.execute(sql, (status, now, now if status == "inactive" else None, meter_id))
        self._meters = None

    def meter(self, meter_id: str) -> Meter | None:
        """Return a meter by its id."""
        return next((meter for meter in self.meters() if meter.id == meter_id), None)

    def active_meter(self, event_name: str) -> Meter | None:
        """Return the newest active meter that takes these events."""
        takes = (meter for meter in self.meters() if meter.event_name == event_name and meter.status == "active")
        return next(takes, None)

    def meters(self) -> list[Meter]:
        """Return all meters, newest first. An account has few."""
        if self._meters is None:
            self._meters = [_meter(row) for row in self._connection.execute(METERS)]
        return self._meters

    def save_reply(self, key: str, reply: SavedReply, *, seconds: int) -> None:
        """Keep the answer to an idempotency key for so long; what is in memory alone is forgotten then."""
        row = (key, reply.fingerprint, reply.status, reply.body, json.dumps(reply.headers), reply.saved_at)
        self._connection.execute("INSERT OR REPLACE INTO reply VALUES (?, ?, ?, ?, ?, ?)", row)
        self._saved += 1
        if self._file is None and self._saved % PRUNED_EVERY == 0:
            # Those that are kept longer are of v2, whose keys begin with the call.
            sql = "DELETE FROM reply WHERE saved_at < ? AND (key LIKE 'POST /v2/%') = ?"
            self._connection.execute(sql, (reply.saved_at - seconds, key.startswith("POST /v2/")))

    def saved_reply(self, key: str, *, since: int) -> SavedReply | None:
        """Return the answer that was saved under a key after `since`."""
        sql = "SELECT fingerprint, status, body, headers, saved_at FROM reply WHERE key = ? AND saved_at > ?"
        row = self._one(sql, key, since)
        return row and SavedReply(
            fingerprint=row[0], status=row[1], body=row[2], headers=json.loads(row[3]), saved_at=row[4]
        )

    def set_control(self, name: str, value: object) -> None:
        """Keep a control setting: a restarted stand-in has the same knobs and the same time."""
        self._connection.execute("INSERT OR REPLACE INTO control VALUES (?, ?)", (name, json.dumps(value)))

    def control(self, name: str) -> Any:
        """Return a control setting, None when it was never set."""
        row = self._one("SELECT value FROM control WHERE name = ?", name)
        return row and json.loads(row[0])

    def count(self) -> dict[str, int]:
        """Return how many of each there are."""
        return {
            f"{table}s": self._one(f"SELECT count(*) FROM {table}")[0]  # noqa: S608 - our own three names
            for table in ("customer", "meter", "event")
        }

    def _forget_meters(self) -> None:
        self._meters = None

    def _one(self, sql: str, *values: object) -> Any:
        return self._connection.execute(sql, values).fetchone()


def _meter(row: tuple[Any, ...]) -> Meter:
    return Meter(
        id=row[0],
        event_name=row[1],
        status=row[2],
        created=row[3],
        updated=row[4],
        deactivated_at=row[5],
        details=json.loads(row[6]),
    )


def _customer(row: tuple[Any, ...]) -> Customer:
    return Customer(id=row[0], created=row[1], deleted=bool(row[2]), details=json.loads(row[3]))
