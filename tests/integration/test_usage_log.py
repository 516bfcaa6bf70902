"""L3: a run is in the history once, for ever, whatever the batches hold, and the sums grow by just what is inserted."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from msgspec import structs

from billing.core import ids
from billing.fulfillment.delivery import Delivered, Marker, Poison
from billing.fulfillment.log import BatchReport, UsageLog
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]
HOUR = 3_600_000

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


def test_given_text_with_every_special_character_when_written_then_it_is_stored_as_it_is(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    odd = "tab\t newline\n return\r back\\slash \\N \\. 'quote' é 😀"
    clients("a\\.client")
    log.write([delivered(usage_event("a\\.client", odd)), delivered(usage_event("a\\.client", "\\."))])
    stored = {row[0] for row in session.execute("SELECT correlation_id FROM usage_history").fetchall()}
    assert stored == {odd, "\\."}


def test_given_duplicates_inside_a_batch_when_written_then_each_run_counts_once(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme", "bolt")
    events = [usage_event("acme"), usage_event("bolt", lines=[paid_line("page"), paid_line("kib")])]
    report = log.write([delivered(event) for event in events + events + events])
    assert report == BatchReport(events=2, rows_inserted=3, duplicates=4)
    assert count(session, "usage_history") == 3
    assert_sums_exact(session)
    assert rebuilds(session) == []


def test_given_a_committed_batch_when_it_is_redelivered_among_new_events_then_only_those_are_added(
    session: Session, log: UsageLog, make_log: Callable[[], UsageLog], clients: Callable[..., None]
) -> None:
    """The consumer died between commit and ack: another one gets the batch again, a year later or at once."""
    clients("acme")
    old = [usage_event(lines=[paid_line(), paid_line("kib")]) for _ in range(20)]
    assert log.write([delivered(event) for event in old]).rows_inserted == 40
    new = [usage_event() for _ in range(5)]
    mixed = [*old, *new, *old[:3]]
    random.Random(1).shuffle(mixed)
    report = make_log().write([delivered(event) for event in mixed])
    assert report == BatchReport(events=5, rows_inserted=5, duplicates=23)
    assert make_log().write([delivered(event) for event in mixed]) == BatchReport(duplicates=28)
    assert count(session, "usage_history") == 45
    assert_sums_exact(session)
    assert rebuilds(session) == []


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


def test_given_poison_and_an_unknown_client_when_written_then_they_are_kept_once_and_the_others_are_charged(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """L10: one client's poison never delays another's event."""
    clients("acme")
    stranger = delivered(usage_event("stranger"))
    poison = delivered(Poison(reason="body: \x00 is not JSON \ud800"), body=b"\x00\xff garbage")
    good = delivered(usage_event())
    expected = BatchReport(events=1, rows_inserted=1, dead_letters=2)
    assert log.write([poison, good, stranger]) == expected
    assert log.write([poison, stranger]) == BatchReport(dead_letters=2)
    letters = session.execute("SELECT body, reason, queue, digest = sha256(body) FROM dead_letter ORDER BY reason")
    assert letters.fetchall() == [
        (b"\x00\xff garbage", "body: \ufffd is not JSON ?", "billing.usage.0", True),
        (stranger.body, "client_id: 'stranger': is not a known client", "billing.usage.0", True),
    ]
    assert_sums_exact(session)


def test_given_a_run_id_from_the_far_future_when_written_then_it_is_a_dead_letter_and_blocks_nothing(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """No month will be there for it: left in the batch it would delay everybody (L10)."""
    clients("acme")
    future = usage_event(run_id=uuid.UUID("ffffffff-fffe-7abc-8abc-000000000001"))
    report = log.write([delivered(future), delivered(usage_event())])
    assert report == BatchReport(events=1, rows_inserted=1, dead_letters=1)
    assert "more than 31 days ahead" in str(session.execute("SELECT reason FROM dead_letter").fetchone())


def test_given_markers_when_written_then_they_are_committed_with_what_came_before_them(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme")
    marker = Marker(token=uuid.uuid4(), shard=3)
    batch = [delivered(usage_event()), delivered(marker), delivered(marker)]
    assert log.write(batch) == BatchReport(events=1, rows_inserted=1, markers=2)
    assert log.write([delivered(marker)]) == BatchReport(markers=1)
    assert session.execute("SELECT token, shard FROM recovery_marker").fetchall() == [(marker.token, 3)]
    assert log.write([]) == BatchReport()


def test_given_an_event_at_the_end_of_an_hour_when_written_then_it_counts_in_that_hour(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme")
    start = 1_790_000_000_000 // HOUR * HOUR
    for occurred_at in (start - 1, start, start + HOUR - 1):
        log.write([delivered(usage_event(at_milliseconds=start, occurred_at=occurred_at))])
    hours = session.execute(
        "SELECT extract(epoch FROM hour) * 1000, credits FROM usage_rollup ORDER BY hour"
    ).fetchall()
    assert hours == [(start - HOUR, 10), (start, 20)]
    assert_sums_exact(session)


def test_given_four_consumers_with_overlapping_shuffled_batches_when_they_write_at_once_then_every_run_counts_once(
    session: Session, make_log: Callable[[], UsageLog], clients: Callable[..., None]
) -> None:
    """No deadlock, no mixed settlements, exact counts: locks are taken in one order, and line 0 owns the run."""
    seeded = random.Random(20)
    names = [f"client-{number}" for number in range(6)]
    clients(*names)
    runs = []
    for number in range(300):
        name, task = seeded.choice(names), f"task-{number}"
        settled_twice = seeded.random() < 0.2
        runs.append(
            [
                usage_event(
                    name,
                    task,
                    [paid_line(sku, 1, [(seeded.randint(1, 4), 5)]) for sku in ("page", "kib", "search")[:several]],
                    at_milliseconds=1_790_000_000_000 + number,
                )
                for several in ((1, 3) if settled_twice else (seeded.randint(1, 3),))
            ]
        )

    def consume(seed: int) -> list[BatchReport]:
        order = random.Random(seed)
        mine = [delivered(order.choice(settlements)) for settlements in runs]
        order.shuffle(mine)
        log = make_log()
        return [log.write(mine[start : start + 40]) for start in range(0, len(mine), 40)]

    with ThreadPoolExecutor(4) as pool:
        reports = [report for consumed in pool.map(consume, range(4)) for report in consumed]
    assert sum(report.events for report in reports) == 300
    assert sum(report.duplicates for report in reports) == 900
    assert sum(report.rows_inserted for report in reports) == count(session, "usage_history")
    stored = session.execute(
        "SELECT run_id, array_agg(DISTINCT settlement_id), count(*), max(line) + 1 FROM usage_history GROUP BY run_id"
    ).fetchall()
    lines = {event.settlement_id: len(event.lines) for settlements in runs for event in settlements}
    assert [row for row in stored if len(row[1]) != 1 or not lines[row[1][0]] == row[2] == row[3]] == []
    assert_sums_exact(session)


def test_given_random_batches_of_everything_when_replayed_then_history_and_sums_are_those_of_the_first_of_each_run(
    session: Session, log: UsageLog, clients: Callable[..., None]
) -> None:
    """Checked against a dictionary: the plainest log there is."""
    seeded = random.Random(7)
    clients("acme", "bolt")
    oracle: dict[uuid.UUID, str] = {}
    messages: list[Delivered] = []
    for number in range(250):
        task = f"task-{seeded.randrange(120)}"
        event = usage_event(
            seeded.choice(("acme", "bolt", "stranger")),
            task,
            [paid_line(quantity=number)] * seeded.randint(1, 2),
            settlement_id=seeded.choice((f"settled-{task}", ids.new_settlement_id())),
            at_milliseconds=1_790_000_000_000,
        )
        messages += [delivered(event)] * seeded.randint(1, 2)
    while messages:
        size = seeded.randint(1, 30)
        batch, messages = messages[:size], messages[size:]
        for message in batch + batch[: seeded.randint(0, 3)]:
            event = message.decoded  # type: ignore[assignment]
            if event.client_id != "stranger":
                oracle.setdefault(event.run_id, event.settlement_id)
        report = log.write(batch)
        assert report.events + report.duplicates + report.dead_letters == len(batch)
        if seeded.random() < 0.3:
            assert log.write(batch).rows_inserted == 0
    stored = session.execute("SELECT run_id, settlement_id FROM usage_history WHERE line = 0").fetchall()
    assert dict(stored) == oracle
    assert_sums_exact(session)


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
