"""What the tests of the archive share: a database whose clock is the test's, and moves of a month as if it were old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from billing import admin
from billing.core.settings import Settings
from billing.schema.months import Partition

#: `clock_timestamp()` of every session that begins afterwards: PostgreSQL looks for a function where this says first.
_CLOCK = """
CREATE SCHEMA test_clock;
CREATE TABLE test_clock.shift AS SELECT interval '0' AS shift;
CREATE FUNCTION test_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql
    AS 'SELECT pg_catalog.clock_timestamp() + shift FROM test_clock.shift';
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = test_clock, pg_catalog, public', current_database());
END $$;
"""


class Calendar:
    """The time of a database, and of those who look after its months."""

    def __init__(self, settings: Settings, session: psycopg.Connection[Any]) -> None:
        self._settings, self._session = settings, session
        self._shift = timedelta(0)
        session.execute(_CLOCK)

    @property
    def now(self) -> datetime:
        """The present of the test."""
        return datetime.now(UTC) + self._shift

    def turn(self, **later: float) -> None:
        """Go on to so long after the beginning; beat makes the months of then."""
        self._shift = timedelta(**later)
        self._session.execute("UPDATE test_clock.shift SET shift = %s", [self._shift])
        admin.make_months(self._settings, now=self.now)


def archive(settings: Settings, month: datetime) -> Partition:
    """Move a month to the archive, a year and a half after it."""
    return admin.detach_month(settings, f"{month:%Y-%m}", now=month + timedelta(days=550))


def place_of(session: psycopg.Connection[Any], month: datetime) -> list[tuple[Any, ...]]:
    """Return the schema and place of a month's table."""
    found = session.execute(
        "SELECT schema, place FROM usage_partition WHERE name = %s", [f"usage_history_{month:%Y_%m}"]
    ).fetchall()
    assert len(found) == 1, found
    return found
