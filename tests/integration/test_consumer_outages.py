"""The consumer while PostgreSQL or the broker is away, hangs, or forgets it: events wait, none is lost (L3, L9)."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import pytest

from billing.events import topology
from billing.fulfillment import consumer as consumer_module
from billing.fulfillment import intake as intake_module
from billing.fulfillment.consumer import Consumer
from tests.amqp import channel_of, consumers, settings_for, waiting
from tests.integration.consuming import (
    check_laws,
    events,
    prepare,
    running,
    send,
    until_rows,
    usage_log,
)
from tests.proxy import in_front_of
from tests.waiting import wait_until


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
    monkeypatch.setattr(intake_module, "HEARTBEAT_SECONDS", 3.0)
    monkeypatch.setattr(consumer_module, "HEARTBEAT_SECONDS", 3.0)
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
            # More than twice the heartbeat, and it is still being written.
            assert concurrent.futures.wait([writing.future], timeout=8.0).not_done
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
                before = consumer.batches
                send(direct, events(20, first=20 * round_))
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


def test_given_a_broker_that_is_not_there_then_the_consumer_waits_and_stops_when_told(database_url: str) -> None:
    """L9: no broker is no crash and no busy loop."""
    prepare("amqp://127.0.0.1:1//", database_url)
    settings = settings_for("amqp://127.0.0.1:1//", database_url=database_url)
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        wait_until(lambda: consumer.trouble is not None, "it has noticed")
        assert "billing_broker_url" in str(consumer.trouble)
