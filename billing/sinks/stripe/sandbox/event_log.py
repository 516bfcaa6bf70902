"""The meter events that were accepted, in SQLite: those that count, those dropped later, those canceled.

Guarantee: nothing is ever removed; what does not count any more says why and since when.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final, NamedTuple

from billing.sinks.stripe.sandbox.records import Event

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, identifier TEXT NOT NULL, event_name TEXT NOT NULL, meter TEXT NOT NULL,
    customer TEXT NOT NULL, value TEXT NOT NULL, timestamp INTEGER NOT NULL, received_at INTEGER NOT NULL,
    dropped TEXT, payload TEXT NOT NULL, key TEXT, canceled_at INTEGER,
    api TEXT NOT NULL DEFAULT 'v1');
CREATE INDEX IF NOT EXISTS event_identifier ON event (identifier, received_at);
CREATE INDEX IF NOT EXISTS event_of_customer ON event (meter, customer, timestamp);
"""
#: What a file of an earlier version lacks.
LATER_COLUMNS: Final = {"key": "TEXT", "canceled_at": "INTEGER", "api": "TEXT NOT NULL DEFAULT 'v1'"}
DROPPED_INDEX: Final = (
    "CREATE INDEX IF NOT EXISTS event_dropped ON event (received_at, meter) WHERE dropped IS NOT NULL"
)
_COLUMNS: Final = (
    "identifier, event_name, meter, customer, value, timestamp, received_at, dropped, key, canceled_at, api"
)
SHOWN_MAX: Final = 100_000


class Counted(NamedTuple):
    """What aggregation needs of an event."""

    place: int
    value: str
    timestamp: int
    received_at: int


class EventLog:
    """All events of one stand-in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        there = {row[1] for row in connection.execute("PRAGMA table_info(event)")}
        for name, kind in LATER_COLUMNS.items():
            if name not in there:
                connection.execute(f"ALTER TABLE event ADD COLUMN {name} {kind}")
        connection.execute(DROPPED_INDEX)

    def add(self, event: Event) -> None:
        """Insert an event."""
        sql = f"INSERT INTO event ({_COLUMNS}, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own text
        named = (event.identifier, event.event_name, event.meter, event.customer, event.value)
        times = (event.timestamp, event.received_at, event.dropped, event.key, event.canceled_at, event.api)
        self._connection.execute(sql, (*named, *times, json.dumps(event.payload)))

    def identifier_used(
        self, identifier: str, *, since: int, meter: str | None, api: str | None, canceled_by: int | None
    ) -> bool:
        """Whether an event with this identifier was received after `since`, on one meter and API or on any.

        Those that are canceled by `canceled_by` are left out, unless it is None.
        """
        sql = (
            "SELECT 1 FROM event WHERE identifier = ?1 AND received_at > ?2 AND (?3 IS NULL OR meter = ?3) "
            "AND (?4 IS NULL OR api = ?4) AND (?5 IS NULL OR canceled_at IS NULL OR canceled_at > ?5) LIMIT 1"
        )
        values = (identifier, since, meter, api, canceled_by)
        return self._connection.execute(sql, values).fetchone() is not None

    def latest(self, identifier: str, event_name: str) -> tuple[int, Event] | None:
        """Return the event of an identifier that was received last, and its place in the log."""
        where = "WHERE identifier = ? AND event_name = ? ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(
            f"SELECT seq, {_COLUMNS}, payload FROM event {where}",  # noqa: S608 - our own text
            (identifier, event_name),
        ).fetchone()
        return row and (row[0], _event(row[1:]))

    def cancel(self, place: int, at: int) -> None:
        """Let an event count no more from a second on."""
        self._connection.execute("UPDATE event SET canceled_at = ? WHERE seq = ?", (at, place))

    def counted(self, meter: str, customer: str, start: int, end: int, *, now: int) -> list[Counted]:
        """Return what counts of a customer at `now` from `start` to `end`, both included, in the order of receipt."""
        sql = (
            "SELECT seq, value, timestamp, received_at FROM event WHERE meter = ? AND customer = ? "
            "AND timestamp BETWEEN ? AND ? AND dropped IS NULL AND (canceled_at IS NULL OR canceled_at > ?) "
            "ORDER BY seq"
        )
        rows = self._connection.execute(sql, (meter, customer, start, end, now)).fetchall()
        return [Counted._make(row) for row in rows]

    def all(self) -> list[Event]:
        """Return every event, those that do not count too, in the order of receipt; at most `SHOWN_MAX`."""
        sql = f"SELECT {_COLUMNS}, payload FROM event ORDER BY seq LIMIT {SHOWN_MAX}"  # noqa: S608 - our own text
        return [_event(row) for row in self._connection.execute(sql)]

    def dropped(self, start: int, end: int) -> list[Event]:
        """Return the events received in [start, end) that were dropped later, in the order of receipt."""
        sql = (
            f"SELECT {_COLUMNS}, payload FROM event WHERE dropped IS NOT NULL "  # noqa: S608 - our own text
            "AND received_at >= ? AND received_at < ? ORDER BY seq"
        )
        return [_event(row) for row in self._connection.execute(sql, (start, end))]

    def totals(self, now: int) -> list[tuple[str, str, int | float]]:
        """Return the sum of the values that count, per customer and event name; exact where all are whole."""
        sql = (
            "SELECT customer, event_name, sum(CAST(value AS NUMERIC)) FROM event WHERE dropped IS NULL "
            "AND (canceled_at IS NULL OR canceled_at > ?) GROUP BY customer, event_name ORDER BY customer, event_name"
        )
        return self._connection.execute(sql, (now,)).fetchall()

    def count_dropped(self) -> dict[str, int]:
        """Return how many events were answered with 200 and do not count, by the code of the later error."""
        sql = "SELECT dropped, count(*) FROM event WHERE dropped IS NOT NULL GROUP BY dropped"
        return dict(self._connection.execute(sql).fetchall())


def _event(row: tuple[Any, ...]) -> Event:
    return Event(
        identifier=row[0],
        event_name=row[1],
        meter=row[2],
        customer=row[3],
        value=row[4],
        timestamp=row[5],
        received_at=row[6],
        dropped=row[7],
        key=row[8],
        canceled_at=row[9],
        api=row[10],
        payload=json.loads(row[11]),
    )
