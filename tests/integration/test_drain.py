"""The drain is the consumer's core, bounded by time, batches and idleness (L9)."""

from __future__ import annotations

import pytest

from billing.core.errors import Fatal
from billing.fulfillment.consumer import Consumer
from billing.fulfillment.drain import drain
from tests.amqp import waiting
from tests.integration.consuming import check_laws, events, prepare, running, send, until_rows, usage_log
from tests.proxy import in_front_of
from tests.waiting import wait_until


def test_given_events_when_drained_then_all_are_rows_and_it_ends_idle(broker_url: str, database_url: str) -> None:
    """The same rows as by a consumer, and an end by itself."""
    settings = prepare(broker_url, database_url)
    good = events(40)
    send(settings, [*good, *good[:30], ("ada", b"poison")])
    report = drain(settings, usage_log(settings), seconds=600, batches=1_000, idle_seconds=3)
    assert (report.events, report.rows, report.duplicates, report.dead_letters) == (151, 120, 30, 1)
    assert report.trouble is None
    assert 3 <= report.seconds < 600, "it ended idle"
    check_laws(settings, good)
    assert waiting(settings, 0) + waiting(settings, 1) == 0


def test_given_more_than_its_batches_then_the_rest_stays_in_the_queue(broker_url: str, database_url: str) -> None:
    """L9: bounded by batches."""
    settings = prepare(broker_url, database_url, usage_queues=1, batch_age_seconds=60.0)
    send(settings, events(30))
    report = drain(settings, usage_log(settings), seconds=600, batches=2, idle_seconds=600)
    assert (report.batches, report.rows) == (2, 40)
    wait_until(lambda: waiting(settings, 0) == 50, "the rest is in the queue")


def test_given_servers_that_do_not_answer_then_it_ends_in_time_and_says_what_is_away(
    broker_url: str, database_url: str
) -> None:
    """L9: bounded by time, in any weather."""
    with in_front_of(database_url) as (proxy, url):
        settings = prepare(broker_url, url)
        send(settings, events(1))
        proxy.shut()
        report = drain(settings, usage_log(settings), seconds=1.5, batches=9, idle_seconds=600)
    assert 1.5 <= report.seconds < 600
    assert report.trouble is not None
    assert "billing_database_url" in report.trouble
    assert (report.events, waiting(settings, 0) + waiting(settings, 1)) == (0, 3)


def test_given_a_consumer_that_serves_the_queues_then_a_drain_gets_nothing_and_takes_nothing(
    broker_url: str, database_url: str
) -> None:
    """One client has one writer: a drain beside the consumer waits its turn and leaves."""
    settings = prepare(broker_url, database_url)
    with running(Consumer(settings, usage_log(settings))) as _:
        send(settings, events(5))
        until_rows(settings, 15)
        report = drain(settings, usage_log(settings), seconds=600, batches=9, idle_seconds=0.5)
        assert report.events == 0
        send(settings, events(5, first=5))
        until_rows(settings, 30)


def test_given_nothing_but_poison_then_it_raises_what_stops_a_consumer(broker_url: str, database_url: str) -> None:
    """The cap on dead-lettering holds here too."""
    settings = prepare(broker_url, database_url, dead_letter_run_max=10)
    send(settings, [("ada", b"bad %d" % number) for number in range(100)])
    with pytest.raises(Fatal, match="in a row were refused"):
        drain(settings, usage_log(settings), seconds=600, batches=100, idle_seconds=600)
