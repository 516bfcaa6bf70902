"""Whether PostgreSQL is an earlier one than Stripe was told from: restored from a dump, or rolled back (L8).

A logical restore makes its tables anew: their number, or the server's own, is not the one on record. What is rolled
back otherwise (a copy of the directory, an earlier point in time) lacks calls that Redis still names. A standby that
took over, and a Redis that was emptied, show neither.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text

from billing.core.clock import Clock
from billing.core.errors import Fatal, Unreachable
from billing.sinks.sync.restored.told import Told

#: How long Stripe's sums may not show what it has taken: longer than anybody has seen (as `looks.ABSENT_FOR`).
LAG: Final = timedelta(hours=24)

_READ: Final = text("""
SELECT relation, server, doubted_at, CAST('stripe_books'::regclass::oid AS bigint) AS relation_now FROM stripe_books
""")
_READ_SERVER: Final = text("SELECT CAST(system_identifier AS text) FROM pg_control_system()")
_MAY_READ_SERVER: Final = text("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
_UNKNOWN: Final = text("""
SELECT count(*) FROM unnest(CAST(:keys AS text[])) AS call (idempotency_key)
WHERE NOT EXISTS (SELECT FROM stripe_attempt WHERE idempotency_key = call.idempotency_key)
""")
_DOUBT: Final = text("UPDATE stripe_books SET doubted_at = :now WHERE doubted_at IS NULL")
_TRUST: Final = text("""
UPDATE stripe_books
SET relation = CAST('stripe_books'::regclass::oid AS bigint), server = :server, doubted_at = NULL, adopted_at = :now,
    reason = :reason
""")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """Why nothing is sent. After `settled_at` Stripe's sums show all that it was told before."""

    why: str
    since: datetime

    def settled_at(self, lag: timedelta = LAG) -> datetime:
        """Return from when on Stripe's sums may be taken for all that it was told."""
        return self.since + lag

    @property
    def what(self) -> str:
        """What is doubted, and why."""
        return f"PostgreSQL is of an earlier moment than Stripe was told from: {self.why}"

    def __str__(self) -> str:
        advice = "billing sync adopt --all --reason …"
        return f"{self.what}; nothing is sent until Stripe's sums are adopted: {advice}"


def read_doubt(engine: Engine, told: Told, clock: Clock) -> Doubt | None:
    """Return why these books are doubted, None when they are not. Nothing is written."""
    # Before the transaction: whatever it sees then has each of these calls, whose attempts were committed before them.
    try:
        calls: Mapping[str, datetime] = told.calls()
    except Unreachable:
        calls = {}
    with engine.connect() as connection:
        found = connection.execute(_READ).one()
        server = _server(connection)
        unknown = connection.execute(_UNKNOWN, {"keys": list(calls)}).scalar_one() if calls else 0
    # A call that is ahead is of a clock that was set back since: nobody is to wait until that time has come.
    since = min(max(calls.values(), default=found.doubted_at or clock.now()), clock.now())
    if unknown:
        return Doubt(why=f"it lacks {unknown:,} of the latest {len(calls):,} calls", since=since)
    if found.relation != found.relation_now or (found.server and server and found.server != server):
        return Doubt(why="it was restored from a dump, or moved to another server by one", since=since)
    return None


def refuse_doubt(engine: Engine, told: Told, clock: Clock) -> None:
    """Raise `Fatal` when these books are doubted; note since when."""
    doubt = read_doubt(engine, told, clock)
    if doubt is None:
        return
    with engine.begin() as connection:
        connection.execute(_DOUBT, {"now": clock.now()})
    raise Fatal(str(doubt))


def trust(engine: Engine, told: Told, clock: Clock, reason: str) -> None:
    """Take the books as they are for the ones that Stripe is told from. Whoever ends in between has it all to do."""
    with engine.begin() as connection:
        connection.execute(_TRUST, {"server": _server(connection), "now": clock.now(), "reason": reason})
    told.forget()


def _server(connection: Connection) -> str:
    """Return the server's own number; empty where the login may not read it."""
    if not connection.execute(_MAY_READ_SERVER).scalar_one():
        return ""
    return str(connection.execute(_READ_SERVER).scalar_one())
