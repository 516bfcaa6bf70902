"""What a delivery does that cannot be billed now: it comes back later, bounded, or fails with the reason (L9)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import celery
import pytest
from celery.exceptions import Ignore, Reject

from billing import BillableTask
from billing.core.clock import to_milliseconds
from billing.core.errors import InsufficientCredits, Recovering, Unreachable
from billing.core.settings import Settings
from billing.events.task_message import TaskMessage
from billing.task.exhausted import answer_exhausted
from billing.task.putting_off import GIVE_BACK_SECONDS, forget_waits, put_off
from billing.task.runtime import Runtime
from billing.task.waits import WAITS_MAX, Waits
from tests.amqp import START, MovedClock

EXHAUSTED = InsufficientCredits("acme", "unit", 10, 5)
NOW = to_milliseconds(START)


@dataclasses.dataclass
class Services:
    """A runtime as far as waiting needs it; it keeps what is published, or refuses it."""

    settings: Settings
    clock: MovedClock = dataclasses.field(default_factory=MovedClock)
    error: Exception | None = None
    published: list[tuple[TaskMessage, int]] = dataclasses.field(default_factory=list)

    @property
    def wait_queues(self) -> Services:
        """Itself."""
        return self

    def publish(self, app: celery.Celery, again: TaskMessage, milliseconds: int) -> None:
        """Keep the message."""
        assert app is not None
        if self.error is not None:
            raise self.error
        self.published.append((again, milliseconds))


@pytest.fixture
def task() -> Iterator[BillableTask]:
    """Make a task that waits for credits, in the middle of a delivery from RabbitMQ."""
    app = celery.Celery("waits", set_as_current=False)

    @app.task(shared=False, name="work", base=BillableTask, sku="unit", on_exhausted="retry")
    def work(client_id: str) -> None:
        """Do nothing."""

    made = cast("BillableTask", app.tasks["work"])
    deliver(made)
    yield made
    made.request_stack.pop()
    app.close()


def deliver(task: BillableTask, *, eager: bool = False, **counts: Any) -> None:
    """Have a task execute a delivery with these counts."""
    headers = {"task": "work", "id": "one", "billing_at": 17, **counts}
    properties = {"content_type": "application/json", "content_encoding": "utf-8", "application_headers": headers}
    info = {"exchange": "", "routing_key": "tasks"}
    if task.request_stack.top is not None:
        task.request_stack.pop()
    task.push_request(**headers, properties=properties, delivery_info=info, is_eager=eager)


def exhaust(task: BillableTask, services: Services) -> None:
    """Have the delivery's client be exhausted."""
    answer_exhausted(task, ["acme"], {}, EXHAUSTED, cast("Runtime", services))


def miss(task: BillableTask, services: Services) -> None:
    """Have something be away."""
    put_off(task, ["acme"], {}, Recovering("later"), cast("Runtime", services))


def test_a_client_that_cannot_pay_waits_longer_each_time_until_the_bound(task: BillableTask) -> None:
    """Given a bound of a day, then the delivery ends once it is published; past the bound the reason is raised."""
    services = Services(Settings(exhausted_wait_seconds=10.0))
    with pytest.raises(Ignore):
        exhaust(task, services)
    deliver(task, billing_waits=2, billing_exhausted_waits=1, billing_exhausted_since=NOW)
    with pytest.raises(Ignore):
        exhaust(task, services)
    counted = [{k: v for k, v in again.headers.items() if k.startswith("billing_")} for again, _ in services.published]
    assert counted == [
        {"billing_at": 17, "billing_waits": 1, "billing_exhausted_waits": 1, "billing_exhausted_since": NOW},
        {"billing_at": 17, "billing_waits": 3, "billing_exhausted_waits": 2, "billing_exhausted_since": NOW},
    ]
    assert services.published[0][1] in (4_000, 8_000)
    assert services.published[1][1] in (15_000, 8_000)

    services.clock.at = START + timedelta(days=1) - timedelta(milliseconds=1)
    with pytest.raises(Ignore):
        exhaust(task, services)
    services.clock.at = START + timedelta(days=1)
    with pytest.raises(InsufficientCredits):
        exhaust(task, services)
    assert len(services.published) == 3


def test_what_is_away_is_waited_for_a_written_number_of_times(task: BillableTask) -> None:
    """Given waits for credits besides, then they do not count."""
    services = Services(Settings())
    deliver(task, billing_waits=WAITS_MAX + 99, billing_exhausted_waits=100, billing_exhausted_since=0)
    with pytest.raises(Ignore):
        miss(task, services)
    deliver(task, billing_waits=WAITS_MAX + 100, billing_exhausted_waits=100, billing_exhausted_since=0)
    with pytest.raises(Recovering):
        miss(task, services)
    assert len(services.published) == 1


def test_an_eager_run_and_the_policy_fail_raise_at_once(task: BillableTask) -> None:
    services = Services(Settings(on_redis_down="fail"))
    with pytest.raises(Recovering):
        miss(task, services)
    deliver(task, eager=True)
    services = Services(Settings())
    with pytest.raises(Recovering):
        miss(task, services)
    with pytest.raises(InsufficientCredits):
        exhaust(task, services)
    assert services.published == []


def test_what_the_broker_does_not_take_is_given_back_slowly(
    task: BillableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a publish that was refused after half a second, then it goes back when two seconds are over."""
    slept: list[float] = []

    class Nap(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            slept.append(timeout or 0.0)
            return False

    monkeypatch.setattr("billing.task.putting_off.threading.Event", Nap)
    services = Services(Settings(), error=Unreachable("blocked"))
    publish = services.publish

    def slow(*arguments: Any) -> None:
        services.clock.move(0.5)
        publish(*arguments)

    monkeypatch.setattr(services, "publish", slow)
    for wait in (exhaust, miss):
        with pytest.raises(Reject) as rejected:
            wait(task, services)
        assert cast("Any", rejected.value).requeue
    assert slept == [GIVE_BACK_SECONDS - 0.5] * 2


def test_what_was_acked_early_fails_where_the_broker_does_not_take_it(task: BillableTask) -> None:
    """Given `acks_late` overridden, then the reason is raised: giving back what the broker has forgotten loses it."""
    services = Services(Settings(), error=Unreachable("blocked"))
    cast("Any", task).acks_late = False
    with pytest.raises(InsufficientCredits):
        exhaust(task, services)
    with pytest.raises(Recovering):
        miss(task, services)


def test_where_no_queue_hands_over_it_counts_down_past_what_a_submission_may_refuse(
    task: BillableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a transport without dead letters, then Celery's countdown, with the counts and the retries so far."""
    sent: list[dict[str, Any]] = []

    def refuse(*_: Any, **__: Any) -> None:
        raise EXHAUSTED

    def send(name: str, args: Any, kwargs: Any, **options: Any) -> None:
        assert (name, args, kwargs) == ("work", ("acme",), {})
        sent.append(options)

    monkeypatch.setattr(type(task), "apply_async", refuse, raising=False)
    monkeypatch.setattr(task.app, "send_task", send)
    task.request.properties, task.request.retries = None, 2
    with pytest.raises(Ignore):
        exhaust(task, Services(Settings(exhausted_wait_seconds=8.0)))

    (message,) = sent
    assert (message["task_id"], message["retries"], message["queue"]) == ("one", 2, "tasks")
    assert 6.0 <= message["countdown"] <= 10.0
    assert message["headers"] == {"billing_at": 17} | Waits().once_exhausted(NOW).headers()


def test_an_admitted_delivery_has_no_counts_any_more(task: BillableTask) -> None:
    """Given waits, then the body, its retries, and what replaces it see the headers that were sent."""
    deliver(task, billing_waits=2, billing_exhausted_waits=1, billing_exhausted_since=NOW)
    forget_waits(task)
    assert task.request.headers == {"billing_at": 17}
