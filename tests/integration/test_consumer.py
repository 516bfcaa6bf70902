"""The consumer between a real broker and a real PostgreSQL: events in, rows out, whatever fails between (L3, L10)."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from billing.events import topology
from billing.events.publisher import Publisher
from billing.fulfillment import consumer as consumer_module
from billing.fulfillment import intake as intake_module
from billing.fulfillment.batch import Received
from billing.fulfillment.consumer import Consumer
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.usage_log import BatchReport, UsageLog
from tests.amqp import channel_of, consumers, event_body, settings_for, waiting
from tests.integration.consuming import (
    check_laws,
    events,
    execute,
    letters,
    prepare,
    rows,
    running,
    seconds_of,
    send,
    until_rows,
    usage_log,
)
from tests.proxy import in_front_of
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
    """L9: a batch that does not fill is written by age."""
    settings = prepare(broker_url, database_url, batch_events=500, batch_age_seconds=0.2)
    with running(Consumer(settings, usage_log(settings))):
        send(settings, events(1))
        assert seconds_of(lambda: until_rows(settings, 3)) < 2.0


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
            timeout=60,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        until_rows(settings, 180)
        wait_until(lambda: waiting(settings, 0) + waiting(settings, 1) == 0, "nothing is left")
    check_laws(settings, good)


def test_given_postgresql_is_down_then_events_wait_and_the_same_batch_is_written_later(
    broker_url: str, database_url: str
) -> None:
    """PostgreSQL down: work goes on, the consumer backs off and keeps its subscription."""
    with in_front_of(database_url) as (proxy, url):
        settings = prepare(broker_url, url)
        consumer = Consumer(settings, usage_log(settings))
        with running(consumer):
            send(settings, events(5))
            until_rows(settings, 15)
            proxy.shut()
            send(settings, events(30, first=5))
            wait_until(lambda: consumer._commit._backoff.failures >= 2, "it has tried")
            intake = consumer._intake
            assert intake is not None
            proxy.reopen()
            until_rows(settings, 105)
            assert consumer._intake is intake
        check_laws(settings, events(35))


def test_given_postgresql_hangs_longer_than_heartbeats_then_the_broker_does_not_give_up_the_consumer(
    broker_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that gets no answer does not silence the connection to the broker."""
    monkeypatch.setattr(intake_module, "HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr(consumer_module, "HEARTBEAT_SECONDS", 1.0)
    with in_front_of(database_url) as (proxy, url):
        settings = prepare(broker_url, url)
        consumer = Consumer(settings, usage_log(settings))
        with running(consumer):
            send(settings, events(5))
            until_rows(settings, 15)
            intake = consumer._intake
            proxy.freeze()
            send(settings, events(5, first=5))
            wait_until(lambda: consumer._writing is not None, "a write hangs")
            writing = consumer._writing
            assert writing is not None
            # Four times the heartbeat, and it is still being written.
            assert concurrent.futures.wait([writing.future], timeout=4.0).not_done
            proxy.reopen()
            until_rows(settings, 30)
            assert consumer._intake is intake
        check_laws(settings, events(10))


def test_given_a_batch_that_waits_too_long_then_it_is_given_back_for_another_consumer(
    broker_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that alone cannot reach PostgreSQL does not keep events from one that can."""
    monkeypatch.setattr(consumer_module, "GIVE_BACK_SECONDS", 0.5)
    with in_front_of(database_url) as (proxy, url):
        settings = prepare(broker_url, url)
        cut_off = Consumer(settings, usage_log(settings))
        with running(cut_off):
            wait_until(lambda: cut_off._intake is not None, "it is subscribed")
            proxy.shut()
            send(settings, events(5))
            other = dataclasses.replace(settings, database_url=database_url)
            with running(Consumer(other, usage_log(other))):
                until_rows(other, 15)
            assert cut_off._intake is None
            proxy.reopen()
            send(settings, events(5, first=5))
            until_rows(settings, 30)
        check_laws(settings, events(10))


def test_given_postgresql_is_away_from_the_start_then_nothing_is_subscribed_until_it_answers(
    broker_url: str, database_url: str
) -> None:
    """It subscribes only while PostgreSQL answers."""
    with in_front_of(database_url) as (proxy, url):
        settings = prepare(broker_url, url)
        send(settings, events(5))
        proxy.shut()
        consumer = Consumer(settings, usage_log(settings))
        with running(consumer):
            wait_until(lambda: consumer.trouble is not None, "it has noticed")
            assert consumers(settings, 0) == 0
            proxy.reopen()
            until_rows(settings, 15)
            assert consumer.trouble is None


def test_given_the_broker_connection_is_cut_again_and_again_then_rows_are_the_events(
    broker_url: str, database_url: str
) -> None:
    """Old tags are dropped with their channel: nothing is acked that was not written."""
    with in_front_of(broker_url) as (proxy, url):
        settings = prepare(url, database_url, batch_events=10)
        direct = dataclasses.replace(settings, broker_url=broker_url)
        consumer = Consumer(settings, usage_log(settings))
        with running(consumer):
            for round_ in range(8):
                send(direct, events(20, first=20 * round_))
                before = consumer.batches
                wait_until(lambda: consumer.batches > before, "a batch")  # noqa: B023 -- called within the round
                proxy.cut()
            until_rows(settings, 480)
            wait_until(lambda: waiting(direct, 0) + waiting(direct, 1) == 0, "nothing is left")
        check_laws(settings, events(160))
        assert waiting(direct, 0) + waiting(direct, 1) == 0


def test_given_its_queues_are_deleted_then_it_declares_them_and_subscribes_again(
    broker_url: str, database_url: str
) -> None:
    """RabbitMQ cancels a consumer whose queue is deleted: that is no silence for ever."""
    settings = prepare(broker_url, database_url)
    with running(Consumer(settings, usage_log(settings))):
        send(settings, events(5))
        until_rows(settings, 15)
        with channel_of(settings) as channel:
            for number in range(settings.usage_queues):
                channel.queue_delete(topology.queue_name(settings, number))
        # Nobody else declares here: RabbitMQ 3.10 takes a moment to forget a quorum queue of the same name.
        wait_until(lambda: all(consumers(settings, number) == 1 for number in range(2)), "both are served again")
        send(settings, events(5, first=5))
        until_rows(settings, 30)


def test_given_an_event_that_the_database_refuses_then_it_alone_is_a_dead_letter(
    broker_url: str, database_url: str
) -> None:
    """L10: the batch is cut in half until the refused event stands alone; the others are written."""
    settings = prepare(broker_url, database_url)
    execute(settings, "ALTER TABLE usage_history ADD CONSTRAINT no_such_work CHECK (correlation_id NOT LIKE 'bad%')")
    bad = [("ada", event_body("ada", "bad-1")), ("dan", event_body("dan", "bad-2"))]
    good = events(15)
    send(settings, good[:11] + bad + good[11:])
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        until_rows(settings, 45)
        wait_until(lambda: consumer.written.events == 47, "all messages are written")
    check_laws(settings, good)
    assert {body for body, _ in letters(settings)} == {body for _, body in bad}
    assert all("no_such_work" in reason for _, reason in letters(settings))


def test_given_nothing_but_refused_events_then_it_stops_instead_of_emptying_the_queue(
    broker_url: str, database_url: str
) -> None:
    """A cap on dead-lettering: when everything is refused, something other than the events is wrong."""
    settings = prepare(broker_url, database_url, dead_letter_run_max=50)
    send(settings, [("ada", b"bad %d" % number) for number in range(500)])
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer) as thread:
        wait_until(lambda: not thread.is_alive(), "it stopped by itself")
    assert consumer.error is not None
    assert str(consumer.error).startswith("billing_dead_letter_run_max: 60 events in a row were refused")
    wait_until(lambda: waiting(settings, 0) + waiting(settings, 1) == 440, "the rest is back in its queue")
    assert len(letters(settings)) == 60


def test_given_good_events_among_the_refused_then_it_goes_on(broker_url: str, database_url: str) -> None:
    """The cap counts refusals in a row, not in total."""
    settings = prepare(broker_url, database_url, dead_letter_run_max=30, usage_queues=1)
    mixed: list[tuple[str, bytes]] = []
    for number in range(20):
        mixed += [("ada", b"bad %d-%d" % (number, each)) for each in range(15)]
        mixed.append(("ada", event_body("ada", str(number))))
    send(settings, mixed)
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        until_rows(settings, 20)
        wait_until(lambda: len(letters(settings)) == 300, "the refused ones are kept")
    assert consumer.error is None


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
        self.go.wait(30)
        return self.log.write(batch)


def test_given_a_stop_while_a_batch_is_written_then_it_is_finished_and_acked_and_the_rest_given_back(
    broker_url: str, database_url: str
) -> None:
    """A clean stop leaves no batch in doubt."""
    settings = prepare(broker_url, database_url, usage_queues=1)
    send(settings, events(30))
    slow = Slow(usage_log(settings))
    consumer = Consumer(settings, slow)
    with running(consumer):
        assert slow.began.wait(10)
        consumer.stop()
        slow.go.set()
    assert rows(settings) == 20
    wait_until(lambda: waiting(settings, 0) == 70, "the rest is back in its queue")


def test_given_a_stop_while_a_write_hangs_then_it_ends_within_its_bound_and_gives_the_batch_back(
    broker_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: a dead database does not keep a worker from stopping."""
    monkeypatch.setattr(consumer_module, "STOP_SECONDS", 0.5)
    settings = prepare(broker_url, database_url, usage_queues=1)
    send(settings, events(30))
    slow = Slow(usage_log(settings))
    consumer = Consumer(settings, slow)

    def stop() -> None:
        with running(consumer):
            assert slow.began.wait(10)
            consumer.stop()

    assert seconds_of(stop) < 5
    wait_until(lambda: waiting(settings, 0) == 90, "everything is back in its queue")
    slow.go.set()


def test_given_a_usage_log_with_a_bug_then_the_event_that_finds_it_delays_nobody(
    broker_url: str, database_url: str
) -> None:
    """L10: what nobody foresaw is tried again, then isolated; nothing is lost."""
    settings = prepare(broker_url, database_url)
    log = usage_log(settings)
    poisonous = event_body("bob", "finds the bug")

    class Buggy:
        close = staticmethod(log.close)

        def write(self, batch: Sequence[Delivered]) -> BatchReport:
            if any(each.body == poisonous and not hasattr(each.decoded, "reason") for each in batch):
                message = "a bug"
                raise ZeroDivisionError(message)
            return log.write(batch)

    send(settings, [*events(5), ("bob", poisonous), *events(5, first=5)])
    with running(Consumer(settings, Buggy())):
        until_rows(settings, 30)
        wait_until(lambda: len(letters(settings)) == 1, "it is kept")
    assert letters(settings)[0][0] == poisonous
    assert "a bug" in letters(settings)[0][1]


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


def test_given_a_broker_that_is_not_there_then_the_consumer_waits_and_stops_when_told(database_url: str) -> None:
    """L9: no broker is no crash and no busy loop."""
    prepare("amqp://127.0.0.1:1//", database_url)
    settings = settings_for("amqp://127.0.0.1:1//", database_url=database_url)
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        wait_until(lambda: consumer.trouble is not None, "it has noticed")
        assert "billing_broker_url" in str(consumer.trouble)
