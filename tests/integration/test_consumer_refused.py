"""Events that the log refuses are kept with their reason, alone, and delay nobody (L10)."""

from __future__ import annotations

from collections.abc import Sequence

from billing.fulfillment.consumer import Consumer
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport
from tests.amqp import event_body, waiting
from tests.integration.consuming import (
    check_laws,
    events,
    execute,
    letters,
    prepare,
    running,
    send,
    until_rows,
    usage_log,
)
from tests.waiting import wait_until


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
    # Batches are full: how many events stand in one does not depend on how fast they come.
    settings = prepare(broker_url, database_url, dead_letter_run_max=50, batch_age_seconds=60.0)
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


def test_given_that_every_second_event_is_refused_then_it_stops_and_the_rest_stays_in_the_queue(
    broker_url: str, database_url: str
) -> None:
    """A bad deploy that refuses a part of all events does not empty the queue into the dead letters either."""
    caps = {"dead_letter_percent_max": 20, "dead_letter_window": 100}
    settings = prepare(broker_url, database_url, usage_queues=1, batch_age_seconds=60.0, **caps)
    mixed = [("ada", event_body("ada", f"{n}") if n % 2 else b"bad %d" % n) for n in range(600)]
    send(settings, mixed)
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer) as thread:
        wait_until(lambda: not thread.is_alive(), "it stopped by itself")
    assert str(consumer.error).startswith("billing_dead_letter_percent_max: 30 of the last 60 events were refused")
    assert (len(letters(settings)), consumer.written.rows) == (30, 30)
    wait_until(lambda: waiting(settings, 0) == 540, "the rest is back in its queue")


def test_given_one_refused_event_in_a_hundred_then_it_never_stops(broker_url: str, database_url: str) -> None:
    """What a fleet at work has of poison, and a handful of it among few events, stops nobody."""
    caps = {"dead_letter_percent_max": 10, "dead_letter_window": 200}
    settings = prepare(broker_url, database_url, usage_queues=1, **caps)
    good = [("ada", event_body("ada", str(number))) for number in range(990)]
    send(settings, [("ada", b"first %d" % number) for number in range(15)])
    send(settings, [each for at in range(0, 990, 99) for each in [*good[at : at + 99], ("ada", b"bad %d" % at)]])
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        until_rows(settings, 990)
        wait_until(lambda: len(letters(settings)) == 25, "the refused ones are kept")
    assert consumer.error is None
    check_laws(settings, good)


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
