"""L3: a run is charged once for ever, also when its month has left the history, and no other batch pays for that.

L7: what is archived stays as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.errors import RestrictViolation

from billing import admin
from billing.core.clock import to_milliseconds
from billing.core.settings import Settings
from billing.events.direct import DIRECT_EPOCH
from billing.fulfillment.log import BatchReport, LogUnready, UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from tests.integration.archiving import Calendar, archive, place_of
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]
SUMS = (
    "SELECT * FROM usage_ever ORDER BY run_id, line",
    "SELECT * FROM usage_rollup ORDER BY 1, 2, 3",
    "SELECT * FROM grant_spent ORDER BY 1, 2",
    "SELECT * FROM posting ORDER BY 1, 2, 3",
    "SELECT run_id, settlement_id, epoch FROM settlement_returned ORDER BY 1, 2, 3",
    "SELECT digest, reason FROM dead_letter ORDER BY 1",
    "SELECT shard FROM shard_rebuild ORDER BY 1",
)


@pytest.fixture
def settings(database: Settings) -> Iterator[Settings]:
    """Give the settings of this test's database; what was connected is closed."""
    yield database
    admin.close(database)


@pytest.fixture
def now(clients: Callable[..., None]) -> datetime:
    """Return the present, in which acme is a client."""
    clients("acme")
    return datetime.now(UTC)


def books(session: Session) -> list[list[tuple[Any, ...]]]:
    """Return all that the log's transactions write."""
    return [session.execute(statement.encode()).fetchall() for statement in SUMS]


def postings(session: Session) -> list[tuple[Any, ...]]:
    """Return (epoch, grant, credits, version) of each posting."""
    return session.execute("SELECT epoch, grant_id, credits, version FROM posting ORDER BY 1, 2").fetchall()


def reasons(session: Session) -> list[str]:
    """Return why there are dead letters."""
    return [row[0] for row in session.execute("SELECT reason FROM dead_letter ORDER BY letter_id").fetchall()]


def test_given_one_event_when_delivered_again_for_400_days_and_across_the_moves_of_its_month_then_it_is_one_row(
    settings: Settings, session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """L3, without a window: rows, rollups, grant sums and postings are the same after each delivery."""
    clients("acme")
    calendar = Calendar(settings, session)
    born = calendar.now
    event = usage_event(at_milliseconds=to_milliseconds(born), lines=[paid_line(shares=[(3, 10), (0, 5)])])
    assert log.write([delivered(event)]).rows_inserted == 1
    written = books(session)

    for after in ({"seconds": 1}, {"hours": 25}, {"days": 35}, {"days": 400}):
        calendar.turn(**after)
        assert log.write([delivered(event)]) == BatchReport(duplicates=1), after
        assert books(session) == written, after
    # The clock is the one that the log reads: what is new in 400 days is no run of the far future then.
    fresh = usage_event(at_milliseconds=to_milliseconds(calendar.now))
    assert log.write([delivered(fresh)]).rows_inserted == 1
    written = books(session)

    month = f"{born:%Y-%m}"
    for move, place in ((admin.detach_month, "archive"), (admin.attach_month, "history")) * 2:
        moved = move(settings, month, **({"now": calendar.now} if move is admin.detach_month else {}))
        assert (moved.place, moved.rows, moved.exact) == (place, 1, True)
        assert log.write([delivered(event)]) == BatchReport(duplicates=1), place
        assert books(session) == written, place


def test_given_an_archived_month_when_a_batch_names_it_then_each_message_comes_to_what_it_must(
    settings: Settings, session: Session, log: UsageLog, now: datetime
) -> None:
    """L6, L10: duplicates do nothing, a second settlement is given back once, an unknown run is a letter.

    The others go on, and a direct event that is charged already takes nothing from the grants of another.
    """
    session.execute("INSERT INTO credit_grant (client_id, credits) VALUES ('acme', 100)")
    assert session.execute("SELECT grant_id FROM credit_grant").fetchall() == [(1,)]
    at = to_milliseconds(now)
    there = usage_event(task_id="there", at_milliseconds=at)
    direct = usage_event(at_milliseconds=at, epoch=DIRECT_EPOCH, lines=[paid_line(shares=[(0, 30)])])
    log.write([delivered(there), delivered(direct)])
    archive(settings, now)
    assert postings(session) == [(1, 1, 30, 1)]
    again = usage_event(task_id="there", at_milliseconds=at, lines=[paid_line(shares=[(1, 7)]), paid_line("kib")])
    unknown = usage_event(at_milliseconds=at)
    coming = now.replace(day=1) + timedelta(days=31)
    new = usage_event(at_milliseconds=to_milliseconds(coming))
    new_direct = usage_event(
        at_milliseconds=at - 90 * 86_400_000, epoch=DIRECT_EPOCH, lines=[paid_line(shares=[(0, 50)])]
    )
    batch = [delivered(event) for event in (there, again, direct, unknown, new, new_direct, again)]

    report = log.write(batch)

    assert report == BatchReport(events=2, rows_inserted=2, duplicates=4, dead_letters=1, postings=("acme",))
    reason = f"run_id: '{unknown.run_id}': is not in its month, {now:%Y-%m}, which is archived"
    assert reasons(session) == [f"{reason} (see: billing partitions attach {now:%Y-%m})"]
    returned = session.execute("SELECT run_id, settlement_id FROM settlement_returned").fetchall()
    assert returned == [(again.run_id, again.settlement_id)]
    # Of the grant's 100 there were 60 left, and 50 after the ordinary run: the new direct event has all of them.
    assert postings(session) == [(1, 1, 30 - 7 - 10 + 50, 2)]
    before = books(session)
    assert log.write(batch) == BatchReport(duplicates=6, dead_letters=1)
    assert books(session) == before, "and all of it once"
    admin.attach_month(settings, f"{now:%Y-%m}")
    assert log.write([delivered(unknown)]).rows_inserted == 1, "attached, its month takes the letter's event"


def test_given_a_month_in_neither_place_when_a_batch_names_it_then_all_of_it_waits_and_nothing_is_lost(
    settings: Settings, session: Session, log: UsageLog, now: datetime
) -> None:
    ahead = now + timedelta(days=30)
    session.execute(f"DROP TABLE usage_history_{ahead:%Y_%m}")
    known = now.replace(day=1) - timedelta(days=1)
    archive(settings, known)
    batch = [delivered(usage_event(at_milliseconds=to_milliseconds(at))) for at in (known, ahead, ahead)]

    with pytest.raises(LogUnready, match=r"no partition of relation .*billing partitions"):
        log.write(batch)

    assert (reasons(session), session.execute("SELECT count(*) FROM usage_ever").fetchone()) == ([], (0,))
    assert admin.make_months(settings) == [f"usage_history_{ahead:%Y_%m}"]
    assert log.write(batch) == BatchReport(events=2, rows_inserted=2, dead_letters=1)


def test_given_an_archive_when_ordinary_batches_are_written_then_no_statement_more_is_sent(
    settings: Settings, log: PostgresUsageLog, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for duplicates, direct events and second settlements: the archive is looked into for its own months only."""
    sent: list[str] = []

    class Counted(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            sent.append(str(query))
            return super().execute(query, *arguments, **options)

    def statements() -> list[str]:
        first = usage_event(task_id="run", at_milliseconds=to_milliseconds(now))
        second = usage_event(task_id="run", at_milliseconds=to_milliseconds(now))
        direct = usage_event(epoch=DIRECT_EPOCH)
        sent.clear()
        log.write([delivered(usage_event())])
        log.write([delivered(event) for event in (first, first, second, direct)])
        return list(sent)

    log.write([delivered(usage_event())])
    assert log._connection is not None
    log._connection.cursor_factory = Counted
    before = statements()
    assert archive(settings, now.replace(day=1) - timedelta(days=1)).place == "archive"
    assert statements() == before
    assert len(before) >= 10
    assert not any("archive" in statement for statement in before)


def test_given_an_archived_month_when_it_is_changed_then_it_is_refused_still(
    settings: Settings, session: Session, log: UsageLog, now: datetime
) -> None:
    log.write([delivered(usage_event(at_milliseconds=to_milliseconds(now)))])
    archive(settings, now)
    assert place_of(session, now) == [("archive", "archive")]
    for table in (f"archive.usage_history_{now:%Y_%m}", "archive.usage_history"):
        for statement in ("UPDATE {} SET credits = 0", "DELETE FROM {} WHERE false", "TRUNCATE {}"):
            with pytest.raises(RestrictViolation, match="append-only"):
                session.execute(statement.format(table).encode())


def test_the_archive_has_every_column_of_the_history_and_so_has_what_joins_them(session: Session) -> None:
    """A migration that widens one and not the others fails here: a month could not be attached again."""
    columns = """
        SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
    """
    history, archived, joined = (
        session.execute(columns.encode(), [name]).fetchall()
        for name in ("usage_history", "archive.usage_history", "usage_ever")
    )
    assert history == archived == joined
    assert len(history) >= 21
