"""What the tests of a starter share, which need no workers: tasks that are parked, a starter, a look into queues."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu
import psycopg

from billing.events.task_message import TaskMessage
from billing.parking.parked import Delivery, ParkOutcome
from billing.parking.starting import Starter
from billing.parking.storing import park
from billing.task.runtime import Runtime
from tests.amqp import app_on
from tests.integration.recovering import Business, the_run

QUEUE = "tasks"
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
def starter(business: Business, runtime: Runtime | None = None, url: str | None = None) -> Iterator[Starter]:
    with app_on(url or business.settings.broker_url) as app:
        made = Starter(app, runtime or business.runtime)
        try:
            yield made
        finally:
            made.close()
