"""A starter on real servers, without workers: what it hands over, when, and what keeps it from that (L1, L9, L10)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import celery
import kombu
import psycopg
import pytest

from billing import admin
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.stack import Stack
from billing.events.task_message import TaskMessage
from billing.parking import starting
from billing.parking.handing_over import HandingOver
from billing.parking.message import PARKED
from billing.parking.parked import Delivery, ParkOutcome
from billing.parking.starting import Starter
from billing.parking.storing import note_begun, park
from billing.task.runtime import Runtime
from tests.amqp import MovedClock
from tests.integration.recovering import Business, the_run
from tests.proxy import in_front_of

pytestmark = pytest.mark.integration

QUEUE, MISSING = "tasks", "missing"
MESSAGE = TaskMessage(
    body=b'[["acme"], {}, {}]',
    content_type="application/json",
    content_encoding="utf-8",
    headers={"id": "one", "task": "ok", "traceparent": "00-1"},
    properties={"priority": 3, "correlation_id": "one", "reply_to": "back"},
    exchange="",
    routing_key=QUEUE,
)


def delivery(
    client: str, task_id: str, credits_: int = 10, *, times: int = 0, exchange: str = "", key: str = QUEUE
) -> Delivery:
    """Return a delivery whose client cannot pay."""
    return Delivery(
        run_id=the_run(client, task_id),
        client_id=client,
        task="ok",
        task_id=task_id,
        sku="page",
        credits=credits_,
        available=0,
        message=dataclasses.replace(
            MESSAGE, headers={**MESSAGE.headers, "id": task_id}, exchange=exchange, routing_key=key
        ),
        times=times,
    )


def parked(business: Business, given: Delivery) -> ParkOutcome:
    with business.runtime.engine.begin() as connection:
        return park(connection, business.settings, given, business.runtime.clock.now())


def states(business: Business) -> dict[str, str]:
    """Return the state of each task, in the order of parking."""
    with psycopg.connect(business.settings.database_url) as connection:
        return dict(connection.execute("SELECT task_id, state FROM parked_task ORDER BY parked_id").fetchall())


@contextmanager
def queue(url: str, name: str = QUEUE, **options: Any) -> Iterator[list[Any]]:
    """Declare a queue, and yield what is in it at the end."""
    found: list[Any] = []
    with kombu.Connection(url, transport_options=options) as connection:
        declared: Any = kombu.Queue(name)(connection.channel())
        declared.declare()
        yield found
        while (message := declared.get(no_ack=True)) is not None:
            found.append(message)


@contextmanager
def app_on(url: str, **options: Any) -> Iterator[celery.Celery]:
    """Make an app whose tasks are on a broker."""
    app = celery.Celery("parked", broker=url, set_as_current=False, broker_transport_options=options)
    try:
        yield app
    finally:
        app.close()


@contextmanager
def starter(business: Business, runtime: Runtime | None = None, url: str | None = None) -> Iterator[Starter]:
    with app_on(url or business.settings.broker_url) as app:
        made = Starter(app, runtime or business.runtime)
        try:
            yield made
        finally:
            made.close()


def test_a_message_is_published_again_as_it_was(business: Business, broker_url: str) -> None:
    """Given a parked task, when it is handed over, then body, headers and properties are those that it came with."""
    client = business.client("brook", 10)
    assert parked(business, delivery(client, "one")) is ParkOutcome.PARKED

    with queue(broker_url) as found, starter(business) as made:
        assert made.step() == 1
        assert made.step() == 0

    (message,) = found
    assert message.body.encode() == MESSAGE.body
    assert message.headers == {**MESSAGE.headers, PARKED: 1}
    assert {name: message.properties[name] for name in MESSAGE.properties} == MESSAGE.properties
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.properties["delivery_mode"] == 2
    assert states(business) == {"one": "started"}


def test_what_no_queue_takes_waits_and_others_have_their_turn(
    business: Business, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a queue and an exchange that are missing, then their clients' tasks wait, are told of, and start later."""
    for client in ("brook", "cedar", "delta", "elm"):
        business.client(client, 20)
    parked(business, delivery("brook", "brook", key=MISSING))
    parked(business, delivery("cedar", "cedar", exchange="none"))
    parked(business, delivery("delta", "delta"))
    parked(business, delivery("elm", "elm"))
    parked(business, delivery("brook", "behind"))

    with queue(broker_url) as found, starter(business) as made:
        assert made.step() == 2
        assert [state for task, state in states(business).items() if task in ("brook", "cedar", "behind")] == [
            "waiting"
        ] * 3
        with queue(broker_url, MISSING):
            assert made.step() == 2

    assert [message.headers["id"] for message in found] == ["delta", "elm", "behind"]
    assert states(business)["cedar"] == "waiting"
    told = [record.getMessage() for record in caplog.records if "no queue took it" in record.getMessage()]
    assert [("brook" in line, MISSING in line) for line in told[:1]] == [(True, True)]
    assert sum("'none'" in line for line in told) == 2


def test_two_starters_at_once_start_no_more_than_is_paid_for(business: Business, broker_url: str) -> None:
    """Given 30 tasks and credits for 12, when two starters are at it, then the first 12 start, once each (L1)."""
    client = business.client("brook", 120)
    for number in range(30):
        parked(business, delivery(client, str(number)))
    other = Runtime(lambda: business.settings)

    def often(runtime: Runtime) -> None:
        with starter(business, runtime) as made:
            for _ in range(5):
                made.step()

    with queue(broker_url) as found:
        threads = [threading.Thread(target=often, args=(runtime,)) for runtime in (business.runtime, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    other.close()

    assert [message.headers["id"] for message in found] == [str(number) for number in range(12)]
    assert list(states(business).values()) == ["started"] * 12 + ["waiting"] * 18


def test_what_is_under_way_keeps_its_credits_until_it_has_begun(business: Business, broker_url: str) -> None:
    """Given a task that was handed over, then its credits start no other until it has reserved, or is long overdue."""
    client = business.client("brook", 10)
    for number in range(3):
        parked(business, delivery(client, str(number)))
    clock = MovedClock()
    runtime = Runtime(lambda: business.settings, clock)

    def begun(task_id: str, times: int) -> None:
        with business.runtime.engine.begin() as connection:
            note_begun(connection, the_run(client, task_id), times, clock.now())

    with queue(broker_url), starter(business, runtime) as made:
        assert [made.step(), made.step()] == [1, 0]
        begun("0", 2)  # of a copy that there never was
        assert made.step() == 0
        begun("0", 1)
        # Had it reserved in the bucket, nothing were left; here its credits are there again, as when it has failed.
        assert [made.step(), made.step()] == [1, 0]
        clock.at += starting.UNDER_WAY_MAX + timedelta(seconds=1)
        assert [made.step(), made.step()] == [1, 0]
    runtime.close()


def test_the_same_run_keeps_its_row_and_its_place(business: Business, broker_url: str) -> None:
    """Given deliveries of one run, then there is one row: an old copy changes nothing, a new one waits again."""
    client = business.client("brook")
    first, behind = delivery(client, "one"), delivery(client, "behind")
    assert [parked(business, first), parked(business, behind), parked(business, first)] == [ParkOutcome.PARKED] * 3
    admin.grant(business.settings, client, 10, key="more")
    with queue(broker_url), starter(business) as made:
        assert made.step() == 1
        assert parked(business, first) is ParkOutcome.PARKED
        assert states(business) == {"one": "started", "behind": "waiting"}

        assert parked(business, delivery(client, "one", 7, times=1)) is ParkOutcome.PARKED
        (row, _) = admin.parked(business.settings)
        assert (row.task_id, row.times, row.credits) == ("one", 2, 7)
        assert made.step() == 1
    assert states(business) == {"one": "started", "behind": "waiting"}
    admin.cancel_parked(business.settings, client_id=client)
    assert parked(business, behind) is ParkOutcome.ENDED


def test_a_starter_that_died_before_its_mark_is_believed_by_the_task_that_begins(business: Business) -> None:
    """Given a task that waits and whose message has begun all the same, then it is started, and published no more."""
    client = business.client("brook", 10)
    parked(business, delivery(client, "one"))
    with business.runtime.engine.begin() as connection:
        note_begun(connection, the_run(client, "one"), 1, business.runtime.clock.now())

    with starter(business) as made:
        assert made.step() == 0
    assert states(business) == {"one": "started"}


def test_clients_have_their_turn(business: Business, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given rounds that are full with two clients' tasks, then each client has its turn within four (L10)."""
    monkeypatch.setattr(starting, "TASKS_OF_ONE_CLIENT_MAX", 2)
    monkeypatch.setattr(starting, "TASKS_MAX", 4)
    monkeypatch.setattr(starting, "CLIENTS_MAX", 4)
    clients = [business.client(f"client-{number}", 1_000) for number in range(5)]
    for number in range(6):
        for client in clients:
            parked(business, delivery(client, f"{client}/{number}"))

    with queue(broker_url) as found, starter(business) as made:
        assert [made.step() for _ in range(4)] == [4, 4, 2, 4]
    assert {message.headers["id"].split("/")[0] for message in found[:10]} == set(clients)


def test_what_waited_too_long_or_ended_long_ago_goes(business: Business) -> None:
    """Given a task that may wait a day, one whose sender wants it within an hour, then each ends in time (L9)."""
    client, clock = business.client("brook"), MovedClock()
    settings = dataclasses.replace(business.settings, parked_age_max_seconds=86_400.0)
    runtime = Runtime(lambda: settings, clock)
    soon = delivery(client, "soon")
    until = (clock.at + timedelta(hours=1)).isoformat()
    soon = dataclasses.replace(
        soon, message=dataclasses.replace(soon.message, headers={"id": "soon", "expires": until})
    )
    with runtime.engine.begin() as connection:
        for one in (soon, delivery(client, "later")):
            park(connection, settings, one, clock.now())
    with starter(business, runtime) as made:
        clock.at += timedelta(hours=1)
        made.step()
        assert states(business) == {"soon": "expired", "later": "waiting"}
        clock.at += timedelta(hours=23)
        made.step()
        assert states(business) == {"soon": "expired", "later": "expired"}
        clock.at += starting.KEPT - timedelta(hours=23)
        made.step()
        assert states(business) == {"later": "expired"}
    runtime.close()


def test_a_broker_that_is_away_leaves_all_waiting(business: Business, broker_url: str) -> None:
    """Given a broker that is down, when it is back, then what could be paid all along starts."""
    client = business.client("brook", 10)
    parked(business, delivery(client, "one"))
    with in_front_of(broker_url) as (door, url), queue(broker_url) as found, starter(business, url=url) as made:
        door.shut()
        with pytest.raises(Unreachable, match="billing_broker_url"):
            made.step()
        assert states(business) == {"one": "waiting"}
        door.reopen()
        assert made.step() == 1
    assert len(found) == 1


def test_a_suspended_clients_tasks_stay(business: Business, broker_url: str) -> None:
    client = business.client("brook", 10)
    parked(business, delivery(client, "one"))
    admin.set_client_state(business.settings, client, "suspended")
    with queue(broker_url), starter(business) as made:
        assert made.step() == 0
        admin.set_client_state(business.settings, client, "active")
        assert made.step() == 1


def test_the_redis_transport_takes_messages_without_confirms(stack: Stack) -> None:
    """Given kombu's Redis transport, then a message arrives as it was, where the app's workers look for it (L3)."""
    url = stack.results.url_of(1)
    # The usage events are on another broker, where nobody listens.
    with app_on(url, global_keyprefix="theirs.") as app, queue(url, "of-parked", global_keyprefix="theirs.") as found:
        publisher = HandingOver(app, Settings(broker_url="amqp://127.0.0.1:1//"))
        publisher.publish(dataclasses.replace(MESSAGE, routing_key="of-parked"))
        publisher.close()
    (message,) = found
    assert message.body in (MESSAGE.body, MESSAGE.body.decode())
    assert message.headers == MESSAGE.headers
    assert {name: message.properties[name] for name in MESSAGE.properties} == MESSAGE.properties


def test_a_task_starts_on_the_broker_it_came_from_wherever_the_usage_events_go(
    business: Business, rabbitmq: RabbitMQ, broker_url: str
) -> None:
    """Given usage events on a broker of their own, then a task is handed to the app's broker, and only there (L3)."""
    client = business.client("brook", 10)
    parked(business, delivery(client, "one"))
    events_url = rabbitmq.add_virtual_host("events")
    runtime = Runtime(lambda: dataclasses.replace(business.settings, broker_url=events_url))
    try:
        with queue(events_url) as wrong, queue(broker_url) as found, starter(business, runtime) as made:
            assert made.step() == 1
    finally:
        runtime.close()
        rabbitmq.remove_virtual_host("events")
    assert [message.headers["id"] for message in found] == ["one"]
    assert wrong == []


def test_a_row_that_cannot_be_published_keeps_back_its_own_client_alone(
    business: Business, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L10: Given a row whose headers nobody can read, then other clients' tasks start, round after round."""
    for client in ("brook", "cedar"):
        business.client(client, 20)
    for client, task_id in (("brook", "spoilt"), ("brook", "behind"), ("cedar", "first"), ("cedar", "second")):
        parked(business, delivery(client, task_id))
    with psycopg.connect(business.settings.database_url) as connection:
        connection.execute("UPDATE parked_task SET headers = '{' WHERE task_id = 'spoilt'")

    with queue(broker_url) as found, starter(business) as made:
        assert [made.step(), made.step()] == [2, 0]

    assert [message.headers["id"] for message in found] == ["first", "second"]
    assert states(business) == {"spoilt": "waiting", "behind": "waiting", "first": "started", "second": "started"}
    assert "parked tasks of client brook wait" in caplog.text
