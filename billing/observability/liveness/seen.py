"""The table `last_seen`: who noted itself when, by the database's clock, so that no two machines' clocks are compared.

A process that ends as it should removes its row; one that was killed leaves it, and is seen to be silent. Rows that
nobody renews are removed after a week (L9).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, text

BEAT: Final = "beat"
CONSUMER: Final = "consumer"
#: How long a row lives that nobody renews (L9).
KEPT: Final = timedelta(days=7)

#: Late news never makes a process look older than it was already seen to be.
_NOTE: Final = text("""
INSERT INTO last_seen (process, name, started_at, seen_at, details)
VALUES (:process, :name, clock_timestamp() - :since, clock_timestamp() - :ago, CAST(:details AS jsonb))
ON CONFLICT (process, name) DO UPDATE
SET started_at = CASE WHEN :restarts THEN excluded.started_at ELSE last_seen.started_at END,
    seen_at = greatest(last_seen.seen_at, excluded.seen_at), details = excluded.details
""")
_LEAVE: Final = text("DELETE FROM last_seen WHERE process = :process AND name = :name")
_FORGET: Final = text("DELETE FROM last_seen WHERE seen_at < clock_timestamp() - CAST(:kept AS interval)")
_READ: Final = text("""
SELECT process, name, started_at, seen_at, details,
       greatest(0, extract(epoch FROM clock_timestamp() - seen_at))::float8 AS age_seconds
FROM last_seen ORDER BY process, name LIMIT :most
""")
#: Rows that are read (L9): a fleet has a few consumers.
_READ_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LastSeen:
    """A process and when it was last seen. `details`: of a consumer, what it had in hand then."""

    process: str
    name: str
    started_at: datetime
    seen_at: datetime
    age_seconds: float
    details: Mapping[str, Any]


def note(
    connection: Connection,
    process: str,
    name: str,
    *,
    since: timedelta | None = None,
    ago: timedelta = timedelta(),
    details: Mapping[str, Any] | None = None,
) -> None:
    """Note that a process lived `ago` before now, and began `since` before now (None: that is not known)."""
    given = {
        "process": process,
        "name": name,
        "since": ago if since is None else since,
        "ago": ago,
        "restarts": since is not None,
        "details": json.dumps(dict(details or {})),
    }
    connection.execute(_NOTE, given)
    connection.execute(_FORGET, {"kept": KEPT})


def leave(connection: Connection, process: str, name: str) -> None:
    """Forget a process that ends as it should: it is not silent, it is gone."""
    connection.execute(_LEAVE, {"process": process, "name": name})


def read(connection: Connection) -> Sequence[LastSeen]:
    """Return who was seen, beat first."""
    return [LastSeen(**row) for row in connection.execute(_READ, {"most": _READ_MAX}).mappings()]
