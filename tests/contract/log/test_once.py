"""L3: a run is in the log once, for ever, whatever the batches hold and whoever writes them at once."""

from __future__ import annotations

import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from billing.core import ids
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport, UsageLog
from tests.contract.log.store import HOUR, Store, assert_sums_exact, rows_of
from tests.usage_events import delivered, paid_line, usage_event

SECOND, DAY = 1_000, 24 * HOUR


def test_given_an_event_when_written_then_every_field_is_in_its_rows(store: Store, log: UsageLog) -> None:
    store.add_clients("acme")
    event = usage_event(lines=[paid_line("page", 2, [(3, 10), (0, 5)]), paid_line("kib", 7, [(3, 1)])])
    assert log.write([delivered(event)]) == BatchReport(events=1, rows_inserted=2)
    assert store.rows() == rows_of(event)
    assert store.spent() == {("acme", 0): 5, ("acme", 3): 11}
    assert_sums_exact(store)


def test_given_text_with_every_special_character_when_written_then_it_is_stored_as_it_is(
    store: Store, log: UsageLog
) -> None:
    odd = "tab\t newline\n return\r back\\slash \\N \\. 'quote' é 😀"
    store.add_clients("a\\.client")
    log.write([delivered(usage_event("a\\.client", odd)), delivered(usage_event("a\\.client", "\\."))])
    assert {row.correlation_id for row in store.rows()} == {odd, "\\."}


def test_given_duplicates_inside_a_batch_when_written_then_each_run_counts_once(store: Store, log: UsageLog) -> None:
    store.add_clients("acme", "bolt")
    events = [usage_event("acme"), usage_event("bolt", lines=[paid_line("page"), paid_line("kib")])]
    report = log.write([delivered(event) for event in events + events + events])
    assert report == BatchReport(events=2, rows_inserted=3, duplicates=4)
    assert len(store.rows()) == 3
    assert_sums_exact(store)


def test_given_a_committed_batch_when_it_is_redelivered_among_new_events_then_only_those_are_added(
    store: Store, log: UsageLog
) -> None:
    """The consumer died between commit and ack: another one gets the batch again."""
    store.add_clients("acme")
    old = [usage_event(lines=[paid_line(), paid_line("kib")]) for _ in range(20)]
    assert log.write([delivered(event) for event in old]).rows_inserted == 40
    new = [usage_event() for _ in range(5)]
    mixed = [*old, *new, *old[:3]]
    random.Random(1).shuffle(mixed)
    report = store.log().write([delivered(event) for event in mixed])
    assert report == BatchReport(events=5, rows_inserted=5, duplicates=23)
    assert store.log().write([delivered(event) for event in mixed]) == BatchReport(duplicates=28)
    assert len(store.rows()) == 45
    assert_sums_exact(store)


@pytest.mark.parametrize("age", [SECOND, 25 * HOUR, 35 * DAY, 400 * DAY], ids=["1 s", "25 h", "35 d", "400 d"])
def test_given_a_run_of_any_age_when_it_is_delivered_again_among_thousands_since_then_it_is_one_row(
    store: Store, log: UsageLog, age: int
) -> None:
    """No window: what was written is found, however much was written after it."""
    store.add_clients("acme")
    now = int(time.time() * 1000)
    old = usage_event(at_milliseconds=now - age)
    assert log.write([delivered(old)]).events == 1
    since = [usage_event(at_milliseconds=now - age * (1000 - number) // 1000) for number in range(1, 1001)]
    assert log.write([delivered(event) for event in since]).events == 1000
    assert log.write([delivered(old), delivered(usage_event())]) == BatchReport(events=1, rows_inserted=1, duplicates=1)
    assert len(store.rows()) == 1002
    assert_sums_exact(store)


@pytest.mark.parametrize("batches", [1, 2])
def test_given_two_settlements_of_one_run_when_written_then_the_first_stands_whole_and_the_other_adds_nothing(
    store: Store, log: UsageLog, batches: int
) -> None:
    """Two settlements never mix: the second one's further lines are not added to the first."""
    store.add_clients("acme")
    first = usage_event(task_id="t", at_milliseconds=1_790_000_000_000)
    again = usage_event(
        task_id="t", at_milliseconds=1_790_000_000_000, lines=[paid_line(), paid_line("kib"), paid_line("search")]
    )
    assert first.run_id == again.run_id
    for batch in [[first, again]] if batches == 1 else [[first], [again]]:
        report = log.write([delivered(event) for event in batch])
        assert report.events + report.duplicates == len(batch)
    assert store.rows() == rows_of(first)
    assert_sums_exact(store)


def test_given_an_event_at_the_end_of_an_hour_when_written_then_it_counts_in_that_hour(
    store: Store, log: UsageLog
) -> None:
    store.add_clients("acme")
    start = 1_790_000_000_000 // HOUR * HOUR
    for occurred_at in (start - 1, start, start + HOUR - 1):
        log.write([delivered(usage_event(at_milliseconds=start, occurred_at=occurred_at))])
    assert store.rollups() == {("acme", "page", start - HOUR): (10, 1), ("acme", "page", start): (20, 2)}


def test_given_four_writers_with_overlapping_shuffled_batches_when_they_write_at_once_then_every_run_counts_once(
    store: Store,
) -> None:
    """No deadlock, no mixed settlements, exact counts."""
    seeded = random.Random(20)
    names = [f"client-{number}" for number in range(6)]
    store.add_clients(*names)
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
        log = store.log()
        return [log.write(mine[start : start + 40]) for start in range(0, len(mine), 40)]

    with ThreadPoolExecutor(4) as pool:
        reports = [report for consumed in pool.map(consume, range(4)) for report in consumed]
    assert sum(report.events for report in reports) == 300
    assert sum(report.duplicates for report in reports) == 900
    rows = store.rows()
    assert sum(report.rows_inserted for report in reports) == len(rows)
    stored = {row.settlement_id for row in rows}
    whole = [
        row for settlements in runs for event in settlements if event.settlement_id in stored for row in rows_of(event)
    ]
    assert len(stored) == 300
    assert rows == sorted(whole, key=lambda row: (row.run_id, row.line))
    assert_sums_exact(store)


def test_given_random_batches_of_everything_when_replayed_then_history_and_sums_are_those_of_the_first_of_each_run(
    store: Store, log: UsageLog
) -> None:
    """Checked against a dictionary: who came first."""
    seeded = random.Random(7)
    store.add_clients("acme", "bolt")
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
    assert {row.run_id: row.settlement_id for row in store.rows() if row.line == 0} == oracle
    assert_sums_exact(store)
