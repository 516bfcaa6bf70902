"""Task events leave the process that ran the task, and nothing that the broker does reaches the task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest

from billing.observability.task_events import sender as event_sender
from billing.observability.task_events.sender import EventSender
from tests.fleet.harness import Fleet
from tests.proxy import in_front_of
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def received(broker_url: str) -> Iterator[tuple[list[dict[str, Any]], Callable[[], None]]]:
    """Yield the events that a monitor has received so far, and what has it look for more."""
    app = celery.Celery("monitor", broker=broker_url, set_as_current=False)
    app.conf.update(event_queue_ttl=600.0, event_queue_expires=1_200.0)  # else what is not read for 5 s is dropped
    events: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-billed": events.append})
        with receiver.consumer_context(wakeup=False) as (consuming, _, _):

            def look() -> None:
                with contextlib.suppress(TimeoutError):
                    consuming.drain_events(timeout=0.1)

            yield events, look
    app.close()


@contextlib.contextmanager
def sending(broker_url: str) -> Iterator[EventSender]:
    app = celery.Celery("worker", broker=broker_url, set_as_current=False)
    sender = EventSender(app, "worker@test")
    yield sender
    sender.close(20)
    app.close()


def wait_for(events: list[dict[str, Any]], look: Callable[[], None], wanted: Callable[[], bool], what: str) -> None:
    def found() -> bool:
        look()
        return wanted()

    wait_until(found, f"{what}; received: {len(events)}")


def test_events_arrive_once_each_and_in_order(broker_url: str) -> None:
    """More than one message's worth, as Celery's own event receivers read them."""
    count = event_sender.BATCH_MAX * 2 + 7
    with received(broker_url) as (events, look), sending(broker_url) as sender:
        for number in range(count):
            sender.send("task-billed", {"uuid": str(number), "billing_client": "acme"})
        wait_for(events, look, lambda: len(events) >= count, "all have come")

    assert [event["uuid"] for event in events] == [str(number) for number in range(count)]
    assert {(event["hostname"], event["billing_client"]) for event in events} == {("worker@test", "acme")}


def test_what_waits_is_sent_before_the_process_ends(broker_url: str) -> None:
    with received(broker_url) as (events, look):
        with sending(broker_url) as sender:
            sender.send("task-billed", {"uuid": "last"})
        wait_for(events, look, lambda: bool(events), "it has come")

    assert [event["uuid"] for event in events] == ["last"]


def test_a_frozen_broker_costs_old_events_and_nothing_else(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """L9: `send` never waits, the queue is bounded; when bytes flow again, so do events."""
    monkeypatch.setattr(event_sender, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(event_sender, "SOCKET_SECONDS", 0.5)
    with in_front_of(broker_url) as (proxy, url), received(broker_url) as (events, look), sending(url) as sender:
        proxy.freeze()
        for number in range(3 * event_sender.WAITING_MAX):
            sender.send("task-billed", {"uuid": str(number)})
        assert len(sender._waiting) <= event_sender.WAITING_MAX

        proxy.reopen()
        sender.send("task-billed", {"uuid": "newest"})
        wait_for(events, look, lambda: any(event["uuid"] == "newest" for event in events), "the newest has come")

    assert len(events) <= event_sender.WAITING_MAX


def test_a_broker_that_is_down_is_tried_again(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sender, "PAUSE_SECONDS", 0.1)
    with in_front_of(broker_url) as (proxy, url), received(broker_url) as (events, look), sending(url) as sender:
        sender.send("task-billed", {"uuid": "before"})
        wait_for(events, look, lambda: len(events) == 1, "the first has come")
        proxy.shut()

        def gave_up() -> bool:
            # The first one may still fit into the kernel's buffer.
            sender.send("task-billed", {"uuid": "lost"})
            return sender._connection is None

        wait_until(gave_up, "the sender gave up the connection")
        proxy.reopen()

        sender.send("task-billed", {"uuid": "after"})
        wait_for(events, look, lambda: any(event["uuid"] == "after" for event in events), "the last has come")

    assert [event["uuid"] for event in events if event["uuid"] != "lost"] == ["before", "after"]


@pytest.mark.slow
def test_tasks_end_while_the_broker_takes_no_events(fleet: Fleet) -> None:
    """Given a worker whose way to publish hangs, then its tasks end and are charged all the same."""
    fleet.client("acme", 10_000)
    fleet.consumer()
    with in_front_of(fleet.settings.broker_url) as (proxy, url):
        # Messages come straight from the broker; what Celery publishes, events for one, goes through the proxy.
        fleet.start("worker", children=2, options=("-E",), environment={"CELERY_BROKER_WRITE_URL": url})
        fleet.wait_ready("worker")
        proxy.freeze()

        results = [fleet.send("ok", "acme", number) for number in range(100)]

        assert [result.get(timeout=120) for result in results] == list(range(100))
        assert len(fleet.wait_for_rows(100)) == 100
        # Celery's own connection would hang in its farewell.
        proxy.reopen()
    assert fleet.balance("acme").spent == 1_000
