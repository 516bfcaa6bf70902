"""What PostgreSQL's usage log does beyond what every log does (tests/contract/log): postings, epochs, modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from msgspec import structs

from billing.fulfillment import log_statements
from billing.fulfillment.delivery import Poison
from billing.fulfillment.log import BatchReport, UsageLog
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]

#: What the derived tables hold and the history does not, or the other way round.
ROLLUPS_THAT_DIFFER = """
    SELECT * FROM (SELECT client_id, sku, hour, credits::numeric, quantity::numeric FROM usage_rollup) AS derived
    FULL JOIN (SELECT client_id, sku, date_trunc('hour', occurred_at, 'UTC') AS hour, sum(credits) AS credits,
                      sum(quantity) AS quantity FROM usage_history GROUP BY 1, 2, 3) AS log
    USING (client_id, sku, hour, credits, quantity) WHERE derived.* IS NULL OR log.* IS NULL
"""
SPENT_THAT_DIFFERS = """
    SELECT * FROM (SELECT client_id, grant_id, credits::numeric FROM grant_spent) AS derived
    FULL JOIN (SELECT client_id, share."grant" AS grant_id, sum(share.credits) AS credits
               FROM usage_history, jsonb_to_recordset(grants) AS share ("grant" bigint, credits bigint)
               GROUP BY 1, 2) AS log
    USING (client_id, grant_id, credits) WHERE derived.* IS NULL OR log.* IS NULL
"""


def assert_sums_exact(session: Session) -> None:
    """Check that rollups and grant sums are the sums of the history."""
    assert session.execute(ROLLUPS_THAT_DIFFER).fetchall() == []
    assert session.execute(SPENT_THAT_DIFFERS).fetchall() == []


def count(session: Session, table: str) -> int:
    """Return how many rows a table has."""
    row = session.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def rebuilds(session: Session) -> list[int]:
    """Return the shards that wait for a rebuild."""
    return [row[0] for row in session.execute("SELECT shard FROM shard_rebuild ORDER BY shard").fetchall()]


def postings(session: Session) -> list[tuple[int, ...]]:
    """Return (epoch, grant, credits, version) of each posting."""
    return session.execute("SELECT epoch, grant_id, credits, version FROM posting ORDER BY 1, 2").fetchall()


def test_given_an_event_when_written_then_every_field_is_in_its_row(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme")
    event = usage_event(lines=[paid_line("page", 2, [(3, 10), (0, 5)]), paid_line("kib", 7, [(3, 1)])])
    assert log.write([delivered(event)]) == BatchReport(events=1, rows_inserted=2)
    rows = session.execute(
        "SELECT run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku, quantity, credits,"
        " grants, epoch, price_version, late, extract(epoch FROM submitted_at) * 1000,"
        " extract(epoch FROM occurred_at) * 1000, recorded_at > occurred_at - interval '1 minute', corrects,"
        " corrects_line, mode FROM usage_history ORDER BY line"
    ).fetchall()
    first = [{"grant": 3, "credits": 10}, {"grant": 0, "credits": 5}]
    shared = (event.settlement_id, "acme", event.correlation_id, event.root_id, event.task, 1)
    ends = (1, 1, False, event.submitted_at, event.occurred_at, True, None, None, None)
    assert rows == [
        (event.run_id, 0, *shared, "page", 2, 15, first, *ends),
        (event.run_id, 1, *shared, "kib", 7, 1, [{"grant": 3, "credits": 1}], *ends),
    ]
    assert session.execute("SELECT grant_id, credits FROM grant_spent ORDER BY 1").fetchall() == [(0, 5), (3, 11)]
    assert_sums_exact(session)


@pytest.mark.parametrize("batches_used", [1, 2])
def test_given_two_settlements_of_one_run_when_written_then_the_first_stands_whole_and_the_other_is_given_back(
    session: Session, log: UsageLog, clients: Callable[..., None], batches_used: int
) -> None:
    """Two settlements never mix: the second one's further line is not added to the first."""
    clients("acme")
    first = usage_event(task_id="t", at_milliseconds=1_790_000_000_000)
    again = usage_event(
        task_id="t", at_milliseconds=1_790_000_000_000, lines=[paid_line(), paid_line("kib"), paid_line("search")]
    )
    assert first.run_id == again.run_id
    batches = [[first, again]] if batches_used == 1 else [[first], [again]]
    reports = [log.write([delivered(event) for event in batch]) for batch in batches]
    assert sum(report.rows_inserted for report in reports) == 1
    assert sum(report.duplicates for report in reports) == 1
    assert [report.postings for report in reports][-1] == ("acme",)
    assert rebuilds(session) == []
    assert postings(session) == [(1, 1, -30, 1)]
    assert log.write([delivered(first), delivered(again)]).postings == ()
    assert postings(session) == [(1, 1, -30, 1)], "once per settlement"
    assert session.execute("SELECT line, settlement_id FROM usage_history").fetchall() == [(0, first.settlement_id)]
    assert_sums_exact(session)


def test_given_epochs_when_events_are_written_then_the_table_of_the_design_holds(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """L6: what the bucket of the client's epoch has paid needs nothing; older is taken, twice is given back, once."""
    clients("acme")
    session.execute("UPDATE client SET epoch = 5")

    def asks_for_a_rebuild(events: Sequence[Any]) -> bool:
        session.execute("DELETE FROM shard_rebuild")
        report = log.write([delivered(event) for event in events])
        assert report.rebuilds == tuple(rebuilds(session))
        return bool(report.rebuilds)

    def epoch() -> int:
        row = session.execute("SELECT epoch FROM client").fetchone()
        assert row is not None
        return int(row[0])

    shares = [paid_line("page", 1, [(1, 7), (0, 3)])]
    current, older = usage_event(task_id="current", epoch=5), usage_event(task_id="older", lines=shares, epoch=4)
    assert not asks_for_a_rebuild([current])
    assert postings(session) == []
    assert not asks_for_a_rebuild([older])
    assert postings(session) == [(5, 0, 3, 1), (5, 1, 7, 1)]
    assert not asks_for_a_rebuild([current, older])  # duplicates of the stored settlements
    other = usage_event(run_id=current.run_id, epoch=5)
    assert not asks_for_a_rebuild([other, other])
    assert postings(session) == [(5, 0, 3, 1), (5, 1, -3, 2)]
    assert not asks_for_a_rebuild([usage_event(run_id=current.run_id, epoch=4), other])
    again = usage_event(run_id=older.run_id, lines=shares, settlement_id=older.settlement_id, epoch=5)
    assert not asks_for_a_rebuild([again])  # the same settlement, taken by the bucket of another epoch as well
    assert postings(session) == [(5, 0, 0, 2), (5, 1, -10, 3)]
    assert epoch() == 5
    newer = usage_event(epoch=8)
    assert asks_for_a_rebuild([newer])
    assert epoch() == 8  # so that the rebuild begins epoch 9, later than any event's
    session.execute("UPDATE client SET epoch = 9")
    assert not asks_for_a_rebuild([newer, other, older])
    assert [row for row in postings(session) if row[0] > 5] == []
    assert_sums_exact(session)


def test_given_two_batches_with_newer_epochs_when_the_older_one_comes_last_then_the_newest_stands(
    session: Session, clients: Callable[..., None]
) -> None:
    """L6: batches of one shard are written side by side; an epoch that a bucket has had never comes again."""
    clients("acme")
    for epoch in (7, 5):
        session.execute(log_statements.RAISE_EPOCHS, [["acme"], [epoch]])
    assert session.execute("SELECT epoch FROM client").fetchall() == [(7,)]


def test_given_letters_when_kept_then_they_are_known_by_their_digest_and_their_reason_is_text(
    session: Session, log: UsageLog
) -> None:
    poison = delivered(Poison(reason="body: \x00 is not JSON \ud800"), body=b"\x00\xff garbage")
    assert log.write([poison, poison]) == BatchReport(dead_letters=2)
    letters = session.execute("SELECT body, reason, queue, digest = sha256(body) FROM dead_letter").fetchall()
    assert letters == [(b"\x00\xff garbage", "body: \ufffd is not JSON ?", "billing.usage.0", True)]


def test_given_events_outside_the_ceiling_when_written_then_rows_say_their_mode_and_only_charges_are_posted(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """L2, L3: a dry run is a row without credits, and no bucket hears of it; a metered one is taken from the bucket."""
    clients("acme")
    dry = structs.replace(usage_event(lines=[paid_line("page", 3, [])], epoch=0), mode="dry_run")
    metered = structs.replace(usage_event(lines=[paid_line("page", 2, [(0, 20)])], epoch=0), mode="meter_only")
    billed = usage_event(lines=[paid_line("page", 1, [(0, 10)])])
    again = structs.replace(metered, settlement_id="of another delivery")
    stranger = structs.replace(usage_event("nobody", lines=[paid_line("page", 3, [])], epoch=0), mode="dry_run")

    report = log.write([delivered(event) for event in (dry, metered, billed, again, stranger)])

    assert (report.events, report.duplicates, report.dropped, report.postings) == (3, 1, 1, ("acme",))
    assert count(session, "dead_letter") == 0
    rows = session.execute("SELECT mode, quantity, credits FROM usage_history ORDER BY quantity").fetchall()
    assert rows == [(None, 1, 10), ("meter_only", 2, 20), ("dry_run", 3, 0)]
    assert postings(session) == [(1, 0, 20, 1)]
    assert_sums_exact(session)
