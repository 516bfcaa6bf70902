"""Objects that are kept whole, as JSON, each with its owner: products, prices, subscriptions, invoices and their items.

Guarantee: what was read once is not read again; a rollback forgets what was put since the transaction began, so that
nothing undone is seen.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Final, TypeVar

from billing.sinks.stripe.sandbox.records import Document

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS document (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    content TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS document_of_owner ON document (kind, owner, seq);
"""
Kept = TypeVar("Kept", bound=Document)


class Documents:
    """All documents of one stand-in. The kind of a document is its class."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._read: dict[str, Document] = {}
        self._put: set[str] = set()

    def begin(self) -> None:
        """Know what is put from here on as part of a transaction."""
        self._put.clear()

    def undo(self) -> None:
        """Read anew what was put since the transaction began."""
        for document_id in self._put:
            self._read.pop(document_id, None)

    def put(self, document: Document) -> None:
        """Insert a document, or replace the one of the same id."""
        content = json.dumps(dataclasses.asdict(document))
        sql = (
            "INSERT INTO document (kind, id, owner, content) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, content = excluded.content"
        )
        self._connection.execute(sql, (type(document).__name__, document.id, document.owner, content))
        self._read[document.id] = document
        self._put.add(document.id)

    def get(self, kind: type[Kept], document_id: str) -> Kept | None:
        """Return a document by its id."""
        known = self._read.get(document_id)
        if known is None:
            sql = "SELECT content FROM document WHERE id = ? AND kind = ?"
            row = self._connection.execute(sql, (document_id, kind.__name__)).fetchone()
            if row is None:
                return None
            known = self._read[document_id] = kind.of(json.loads(row[0]))
        return known if isinstance(known, kind) else None

    def of(self, kind: type[Kept], *, owner: str | None = None) -> list[Kept]:
        """Return the documents of a kind, of one owner or of all, newest first."""
        where, values = (
            ("kind = ?", [kind.__name__]) if owner is None else ("kind = ? AND owner = ?", [kind.__name__, owner])
        )
        rows = self._connection.execute(f"SELECT id FROM document WHERE {where} ORDER BY seq DESC", values)  # noqa: S608 - our own text
        found = (self.get(kind, row[0]) for row in rows.fetchall())
        return [one for one in found if one is not None]

    def place(self, document: Document) -> int:
        """Return how many documents of its kind and owner were there when this one was made, itself among them."""
        sql = (
            "SELECT count(*) FROM document WHERE kind = ? AND owner = ? "
            "AND seq <= (SELECT seq FROM document WHERE id = ?)"
        )
        values = (type(document).__name__, document.owner, document.id)
        return int(self._connection.execute(sql, values).fetchone()[0])

    def forget(self) -> None:
        """Read everything anew."""
        self._read.clear()
