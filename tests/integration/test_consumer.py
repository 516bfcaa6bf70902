"""The consumer between a real broker and a real PostgreSQL: events in, rows out, whatever fails between (L3, L10)."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from billing.events.publisher import Publisher
from billing.fulfillment import consumer as consumer_module
from billing.fulfillment.batch import Received
from billing.fulfillment.consumer import Consumer
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport, UsageLog
from tests.amqp import event_body, waiting
from tests.integration.consuming import (
    check_laws,
    events,
    letters,
    prepare,
    rows,
    running,
    send,
    until_rows,
    usage_log,
)
from tests.waiting import wait_until


def test_given_duplicates_poison_and_unknown_clients_then_rows_are_the_events_each_once(
    broker_url: str, database_url: str
) -> None:
    """L3 and L10: what comes twice is one row; what cannot be used is kept with its reason, and delays nobody."""
    settings = prepare(broker_url, database_url)
    good = events(50)
    stranger = event_body("stranger", "1")
    bad = [("ada", b"\xff\xfe"), ("bob", b"{}"), ("ada", stranger), ("dan", b'{"version":9}')]
    send(settings, good[:70] + bad + good[:30] + good[40:] + good)
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        until_rows(settings, 150)
        wait_until(lambda: consumer.written.events == 70 + 4 + 30 + 110 + 150, "all messages are written")
    check_laws(settings, good)
    assert {body for body, _ in letters(settings)} == {body for _, body in bad}
    assert all(reason for _, reason in letters(settings))
    assert (waiting(settings, 0), waiting(settings, 1)) == (0, 0)
    assert (consumer.written.rows, consumer.written.duplicates, consumer.written.dead_letters) == (150, 210, 4)


def test_given_few_events_then_they_are_written_within_the_batchs_age(broker_url: str, database_url: str) -> None:
    """L9: a batch that does not fill is written by age, and by nothing else; `test_batch.py` says when."""
    settings = prepare(broker_url, database_url, batch_events=500, batch_age_seconds=0.2)
    with running(Consumer(settings, usage_log(settings))):
        send(settings, events(1))
        until_rows(settings, 3)


def test_given_one_queue_then_only_it_is_consumed(broker_url: str, database_url: str) -> None:
    """`--fulfillment=0` serves queue 0."""
    settings = prepare(broker_url, database_url)
    send(settings, events(10))
    in_other = waiting(settings, 1)
    assert 0 < in_other < 30
    with running(Consumer(settings, usage_log(settings), queues=[0])):
        until_rows(settings, 30 - in_other)
    assert waiting(settings, 1) == in_other


@pytest.mark.parametrize("point", ["before commit", "after commit", "after ack"])
def test_given_a_consumer_killed_with_sigkill_then_no_event_is_lost_or_doubled(
    point: str, broker_url: str, database_url: str
) -> None:
    """L3: killed anywhere, its batch is sent again, and the log's key makes that harmless."""
    settings = prepare(broker_url, database_url)
    good = events(60)
    send(settings, [*good, *good[:50]])
    script = Path(__file__).with_name("killed_consumer.py")
    for batch in (1, 2, 3):
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                f"tests.integration.{script.stem}",
                json.dumps(dataclasses.asdict(settings)),
                point,
                str(batch),
            ],
            cwd=script.parents[2],
            timeout=240,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        until_rows(settings, 180)
        wait_until(lambda: waiting(settings, 0) + waiting(settings, 1) == 0, "nothing is left")
    check_laws(settings, good)


class Slow:
    """A usage log that waits for the test before it writes."""

    def __init__(self, log: UsageLog) -> None:
        self.log = log
        self.close = log.close
        self.began = threading.Event()
        self.go = threading.Event()

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Wait, then write."""
        self.began.set()
        self.go.wait()
        return self.log.write(batch)


def test_given_a_stop_while_a_batch_is_written_then_it_is_finished_and_acked_and_the_rest_given_back(
    broker_url: str, database_url: str
) -> None:
    """A clean stop leaves no batch in doubt."""
    settings = prepare(broker_url, database_url, usage_queues=1, batch_age_seconds=60.0)
    send(settings, events(30))
    slow = Slow(usage_log(settings))
    consumer = Consumer(settings, slow)
    with running(consumer):
        assert slow.began.wait(120)
        consumer.stop()
        slow.go.set()
    assert rows(settings) == 20
    wait_until(lambda: waiting(settings, 0) == 70, "the rest is back in its queue")


def test_given_a_stop_while_a_write_hangs_then_it_ends_within_its_bound_and_gives_the_batch_back(
    broker_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: a dead database does not keep a worker from stopping."""
    monkeypatch.setattr(consumer_module, "STOP_SECONDS", 0.5)
    settings = prepare(broker_url, database_url, usage_queues=1, batch_age_seconds=60.0)
    send(settings, events(30))
    slow = Slow(usage_log(settings))
    consumer = Consumer(settings, slow)
    with running(consumer):  # which checks that it ends, though the write hangs still
        assert slow.began.wait(120)
        wait_until(lambda: waiting(settings, 0) == 50, "two batches of 20 are sent ahead, and no more")
        consumer.stop()
    wait_until(lambda: waiting(settings, 0) == 90, "everything is back in its queue")
    slow.go.set()


def test_given_what_follows_a_commit_fails_then_the_rows_are_acked_all_the_same(
    broker_url: str, database_url: str
) -> None:
    """After the commit the event is safe; outbox entries that stay are published again."""
    settings = prepare(broker_url, database_url)
    seen: list[Received] = []

    def fail(batch: Sequence[Received]) -> None:
        seen.extend(batch)
        message = "Redis is away"
        raise OSError(message)

    send(settings, events(5))
    consumer = Consumer(settings, usage_log(settings), after_commit=fail)
    with running(consumer):
        until_rows(settings, 15)
        wait_until(lambda: waiting(settings, 0) + waiting(settings, 1) == 0, "acked")
        wait_until(lambda: len(seen) == 15, "each was handed over")
    assert {each.shard for each in seen} <= set(range(settings.shards))


def test_given_the_redis_transport_then_rows_are_the_events_and_each_batch_names_its_outbox_entries(
    result_url: str, database_url: str
) -> None:
    """Without RabbitMQ the same code runs; what is committed is handed over with its outbox entry."""
    settings = prepare(result_url, database_url)
    entries: list[tuple[int | None, str | None]] = []
    consumer = Consumer(
        settings,
        usage_log(settings),
        after_commit=lambda batch: entries.extend((each.shard, each.entry_id) for each in batch),
    )
    with running(consumer):
        publisher = Publisher(settings)
        for number, (_, body) in enumerate(events(20)):
            publisher.publish(number % 2, body, shard=number % 4, entry_id=f"{number}-0")
        publisher.publish(0, b"poison", shard=0, entry_id="60-0")
        until_rows(settings, 60)
        wait_until(lambda: len(entries) == 61, "each was handed over")
        publisher.close()
    assert sorted(entries, key=str) == sorted([(n % 4, f"{n}-0") for n in range(60)] + [(0, "60-0")], key=str)
    check_laws(settings, events(20))
