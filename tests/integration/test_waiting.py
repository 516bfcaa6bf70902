"""What waits for credits, or for Redis, waits in RabbitMQ: nothing is lost, nobody is held up, all is charged once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import kombu
import psycopg
import pytest
from celery import signals
from celery.exceptions import TaskRevokedError

from billing import InsufficientCredits
from billing.core.ids import run_id
from billing.core.shards import shard_of
from billing.events.task_message import TaskMessage
from billing.task.wait_queues import WaitQueues
from billing.task.waits import queue_name
from tests.fleet import admissions
from tests.fleet.deliveries import deliveries, ready, waiting
from tests.fleet.harness import Fleet
from tests.fleet.poverty import closed, pay, poor, task, wait_for_deliveries
from tests.fleet.tasks import SKU, noted
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def fleet(running_fleet: Fleet) -> Fleet:
    """Return the module's fleet: each test has clients of its own."""
    return running_fleet


@pytest.fixture(scope="module")
def narrow(running_fleet: Fleet) -> Iterator[str]:
    """Run a worker with one slot and long waits, in a queue of its own, which it is named by."""
    environment = {
        admissions.VARIABLE: "1",
        "BILLING_EXHAUSTED_WAIT_SECONDS": "60",
        "BILLING_UNAVAILABLE_RETRY_SECONDS": "1",
    }
    worker = running_fleet.start("narrow", options=("-Q", "narrow"), environment=environment)
    running_fleet.wait_ready("narrow")
    yield "narrow"
    worker.stop(60)


def test_a_delivery_that_waits_is_the_same_delivery_and_is_charged_once_under_its_first_run_id(fleet: Fleet) -> None:
    """Given a client without credits, when it is granted some, then what waited runs once, chain and callback too."""
    poor(fleet, "acme")
    first = task(
        fleet,
        "patient",
        "acme",
        1,
        priority=7,
        expires=36_000,
        countdown=0.2,
        time_limit=3_000,
        soft_time_limit=2_000,
        shadow="in disguise",
        argsrepr="(…)",
        headers={"team": "x"},
        reply_to="answers",
        link=[task(fleet, "patient", "acme", 2)],
        link_error=[task(fleet, "free")],
    )
    chained = celery.chain(first, task(fleet, "patient", "acme", 3), app=fleet.app)
    chained.stamp(batch="a")

    last: Any = chained.apply_async()
    told = wait_for_deliveries(fleet, last.parent.id, 3)

    # While it waits nothing is held, and the body has not run.
    assert fleet.holds("acme") == []
    assert (fleet.balance("acme").held, fleet.balance("acme").available) == (0, 5)
    assert noted(fleet.directory, "ran.acme") == []
    pay(fleet, "acme", 25)
    assert last.get(timeout=120) == 3
    wait_until(lambda: len(noted(fleet.directory, "ran.acme")) == 3, "task, callback and chain ran")

    told = deliveries(fleet.directory, last.parent.id)
    counts, etas = ([delivery.pop(name) for delivery in told] for name in ("counts", "eta"))
    assert counts == [[number, number] for number in range(len(told))]
    assert etas[0] is not None
    assert set(etas[1:]) == {None}
    for delivery in told[1:]:
        assert delivery == told[0]
    assert told[0]["property priority"] == 7
    assert told[0]["headers"]["team"] == "x"
    assert told[0]["chain"]
    assert told[0]["callbacks"]
    rows = fleet.wait_for_rows(3, "acme")
    assert sorted(noted(fleet.directory, "ran.acme")) == ["1", "2", "3"]
    assert [row.credits for row in rows] == [10, 10, 10]
    assert [row.attempt for row in rows] == [1, 1, 1]
    assert fleet.balance("acme").available == 0
    sent = told[0]["headers"]
    first_run = run_id(
        "acme", last.parent.id, nesting=0, nonce=sent["billing_nonce"], at_milliseconds=sent["billing_at"]
    )
    with psycopg.connect(fleet.settings.database_url) as connection:
        query = "SELECT run_id FROM usage_history WHERE correlation_id = %s"
        assert connection.execute(query, [last.parent.id]).fetchall() == [(first_run,)]


def test_the_retries_of_the_users_own_are_not_used_up_and_begin_without_counts(fleet: Fleet) -> None:
    """Given one retry allowed, when a task has waited twice, then it still retries once, and is charged once."""
    poor(fleet, "brook")
    result = task(fleet, "patient_retries", "brook").apply_async()
    wait_for_deliveries(fleet, result.id, 3)

    pay(fleet, "brook", 5)

    assert result.get(timeout=120) == 1
    bodies = [json.loads(line) for line in noted(fleet.directory, "ran.brook")]
    assert [sorted(headers) for headers in bodies] == [["billing_at", "billing_nonce"]] * 2
    told = deliveries(fleet.directory, result.id)
    assert [delivery["retries"] for delivery in told] == [0] * (len(told) - 1) + [1]
    assert told[-1]["counts"] == [0, 0]
    assert [(row.credits, row.attempt) for row in fleet.wait_for_rows(1, "brook")] == [(10, 2)]
    assert fleet.balance("brook").available == 0


def test_a_chord_whose_parts_waited_goes_on_once(fleet: Fleet) -> None:
    """Given a chord of two parts without credits, when they can pay, then its body runs once, with both results."""
    poor(fleet, "cedar")
    parts = [task(fleet, "patient", "cedar", number) for number in (1, 2)]
    result: Any = celery.chord(parts, app=fleet.app)(fleet.app.signature("sum_up", args=["cedar"]))
    for part in result.parent.results:
        wait_for_deliveries(fleet, part.id, 2)
    assert noted(fleet.directory, "summed.cedar") == []

    pay(fleet, "cedar", 15)

    assert result.get(timeout=120) == 3
    assert len(fleet.wait_for_rows(2, "cedar")) == 2
    assert len(noted(fleet.directory, "ran.cedar")) == 2
    assert len(noted(fleet.directory, "summed.cedar")) == 1


def test_one_alert_is_made_however_often_a_client_is_found_exhausted(fleet: Fleet) -> None:
    """Given a task that comes back again and again, then its client is told once."""
    poor(fleet, "delta")
    result = task(fleet, "patient", "delta").apply_async()

    wait_for_deliveries(fleet, result.id, 3)
    wait_until(lambda: "delta 0" in noted(fleet.directory, "billing_exhausted"), "the client is told")

    assert noted(fleet.directory, "billing_exhausted").count("delta 0") == 1
    with psycopg.connect(fleet.settings.database_url) as connection:
        query = "SELECT count(*) FROM alert WHERE client_id = 'delta' AND threshold_percent = 0"
        assert connection.execute(query).fetchall() == [(1,)]
    pay(fleet, "delta", 5)
    assert result.get(timeout=120) == 0


def test_a_message_that_expired_while_it_waited_is_revoked_when_it_returns(fleet: Fleet) -> None:
    """Given a message past its time, when it comes back, then Celery revokes it and its result says so; no charge."""
    fleet.client("elm", 10)
    sent: dict[str, Any] = {}

    def keep(headers: Any = None, body: Any = None, **_: Any) -> None:
        sent.update(headers=headers, body=body)

    # What a worker would have had in its hands: the message of a real publish, which nobody reads.
    signals.before_task_publish.connect(keep)
    result = task(fleet, "patient", "elm", expires=3_600, queue="nobody").apply_async()
    signals.before_task_publish.disconnect(keep)
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    again = TaskMessage(
        exchange="",
        routing_key="tasks",
        body=json.dumps(sent["body"]).encode(),
        content_type="application/json",
        content_encoding="utf-8",
        headers=sent["headers"] | {"expires": past, "billing_waits": 1},
        properties={"correlation_id": result.id, "delivery_mode": 2},
    )
    waits = WaitQueues(fleet.settings)
    waits.publish(fleet.app, again, 500)
    waits.close()

    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=120)
    assert deliveries(fleet.directory, result.id) == []
    assert (fleet.balance("elm").held, fleet.balance("elm").spent) == (0, 0)


def test_what_waited_for_too_long_fails_with_the_reason(fleet: Fleet) -> None:
    """Given a bound on the whole wait, in a pool of threads, then the task fails; others are charged (L9)."""
    poor(fleet, "fjord")
    fleet.client("grove", 100)
    bound = {"BILLING_EXHAUSTED_WAIT_MAX_SECONDS": "0.4"}
    worker = fleet.start("threads", pool="threads", children=4, options=("-Q", "threads"), environment=bound)
    fleet.wait_ready("threads")

    results = [task(fleet, "patient", "fjord", number, queue="threads").apply_async() for number in range(8)]
    paid = [task(fleet, "patient", "grove", number, queue="threads").apply_async() for number in range(10)]

    assert [result.get(timeout=120) for result in paid] == list(range(10))
    for result in results:
        with pytest.raises(InsufficientCredits) as refused:
            result.get(timeout=120)
        assert refused.value.args == ("fjord", SKU, 10, 5)
        # The first wait is half a second, which is past the bound.
        assert [delivery["counts"] for delivery in deliveries(fleet.directory, result.id)] == [[0, 0], [1, 1]]
    assert len(fleet.wait_for_rows(10, "grove")) == 10
    assert noted(fleet.directory, "ran.fjord") == []
    assert waiting(fleet.settings.broker_url, "threads") == 0
    worker.stop(60)


def test_what_the_broker_does_not_take_is_given_back_to_it(fleet: Fleet) -> None:
    """Given a queue of the name that is not ours, then deliveries go back, and wait and run once it is away."""
    poor(fleet, "kelp")
    name = queue_name("", "tasks", 500)
    with kombu.Connection(fleet.settings.broker_url) as connection:
        channel: Any = connection.channel()
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, auto_delete=False)
        result = task(fleet, "patient", "kelp").apply_async()
        told = wait_for_deliveries(fleet, result.id, 2)
        assert [delivery["counts"] for delivery in told[:2]] == [[0, 0]] * 2
        channel.queue_delete(name)

    pay(fleet, "kelp", 5)

    assert result.get(timeout=120) == 0
    assert noted(fleet.directory, "ran.kelp") == ["0"]
    assert len(fleet.wait_for_rows(1, "kelp")) == 1


def test_while_redis_recovers_nothing_waits_in_a_worker(fleet: Fleet, narrow: str) -> None:
    """Given a shard that recovers, then 100 deliveries wait in RabbitMQ, none in a worker; later each is charged."""
    fleet.client("juniper", 1_000)
    shard = shard_of("juniper", fleet.settings.shards)
    url = fleet.settings.broker_url
    with closed(fleet, shard):
        results = [task(fleet, "patient", "juniper", number, queue=narrow).apply_async() for number in range(100)]
        wait_until(lambda: all(deliveries(fleet.directory, result.id) for result in results), "all were put off")
        wait_until(lambda: waiting(url, narrow), "some of them are seen to wait in RabbitMQ")
        inspect = fleet.app.control.inspect(["narrow@test"], timeout=60)
        assert inspect.scheduled() == {"narrow@test": []}
        # One is being put off, one was prefetched; all others are RabbitMQ's.
        in_hand = [*(inspect.reserved() or {})["narrow@test"], *(inspect.active() or {})["narrow@test"]]
        assert len(in_hand) <= 2
        assert noted(fleet.directory, "ran.juniper") == []
    assert sorted(result.get(timeout=120) for result in results) == list(range(100))
    assert len(fleet.wait_for_rows(100, "juniper")) == 100
    assert len(noted(fleet.directory, "ran.juniper")) == 100
    assert fleet.balance("juniper").available == 0


def test_one_exhausted_client_does_not_delay_another(fleet: Fleet, narrow: str) -> None:
    """L10: Given one slot, prefetch 1, and 200 deliveries of a client that cannot pay, then another's runs at once."""
    poor(fleet, "heath")
    fleet.client("iris", 10)
    url = fleet.settings.broker_url
    tasks = [task(fleet, "patient", "heath", number, queue=narrow) for number in range(200)]
    ids = [one.apply_async().id for one in tasks]

    def answers(client_id: str) -> list[admissions.Answer]:
        found = (answer for answer in admissions.answers(fleet.directory) if answer.client_id == client_id)
        return sorted(found, key=lambda answer: answer.began_ns)

    def all_wait() -> bool:
        return len(answers("heath")) >= 200 and ready(url, narrow) == [0]

    wait_until(all_wait, "the queue is empty, though 200 deliveries were not served")
    before = len(answers("heath"))
    result = task(fleet, "patient", "iris", 7, queue=narrow).apply_async()
    (ahead,) = ready(url, narrow)
    assert result.get(timeout=120) == 7

    (served,) = answers("iris")
    between = [found for found in answers("heath")[before:] if found.began_ns < served.began_ns]
    # At most what was in the queue before it, and what was in the worker's hands.
    assert len(between) <= ahead + 2
    # None of them waits in the worker, and none is lost.
    assert fleet.app.control.inspect(["narrow@test"], timeout=60).scheduled() == {"narrow@test": []}
    assert {name for name in ids if deliveries(fleet.directory, name)} == set(ids)
    assert fleet.holds("heath") == []
    assert [row.client_id for row in fleet.wait_for_rows(1, "iris")] == ["iris"]
