"""Where a starter hands tasks over, and what keeps it from that: missing queues, lost brokers, a bad row (L3, L10)."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.stack import Stack
from billing.parking.handing_over import HandingOver
from billing.task.runtime import Runtime
from tests.amqp import app_on
from tests.integration.recovering import Business
from tests.integration.starting import MESSAGE, delivery, parked, queue, starter, states
from tests.proxy import in_front_of

pytestmark = pytest.mark.integration

MISSING = "missing"


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
