"""The faults that an operator must see: how each begins and ends, and where it shows while it lasts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import redis

from billing.embedded.stack import Stack
from tests.deploy.watched import Watched
from tests.fleet.harness import Fleet
from tests.fleet.keys import key_of
from tests.fleet.tasks import noted
from tests.hanging import hanging
from tests.integration.test_publishing_faults import memory_alarm
from tests.waiting import wait_until

CLIENT: Final = "acme"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault: while `lasts` is entered it is there. `part`: where `billing doctor` has a finding that `says` this."""

    lasts: Callable[[Watched, Stack], AbstractContextManager[None]]
    part: str
    says: str
    #: A query that has a series while the fault lasts, and none otherwise.
    metric: str
    alerts: tuple[str, ...]


@contextmanager
def consumer_stopped(watching: Watched, stack: Stack) -> Iterator[None]:
    """Have the only fulfillment worker end as it should, and another one start at the end."""
    del stack
    watching.consumer.stop(30)
    try:
        yield
    finally:
        watching.replace_consumer()


@contextmanager
def rabbitmq_blocked(watching: Watched, stack: Stack) -> Iterator[None]:
    """Have RabbitMQ be short of memory while a task succeeds: its event cannot be published."""
    assert stack.rabbitmq is not None
    fleet, gate = watching.fleet, f"gate-{watching.next_number()}"
    fleet.send("gated", CLIENT, gate)
    wait_until(lambda: noted(fleet.directory, f"{gate}.started"), "the task runs")
    with memory_alarm(stack.rabbitmq):
        (fleet.directory / gate).touch()
        yield


@contextmanager
def drifted(watching: Watched, stack: Stack) -> Iterator[None]:
    """Have a client's bucket be given a credit by hand; in the end the books are repaired by command."""
    del stack
    fleet = watching.fleet
    key = key_of(fleet, CLIENT, "bucket")
    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        before = client.get(key)
        assert isinstance(before, bytes)
        balance = fleet.balance(CLIENT)
        old, new = (f":{balance.available + more}:{balance.held}:{balance.spent}".encode() for more in (0, 1))
        assert before.count(old) == 1, before
        client.set(key, before.replace(old, new))
    try:
        yield
    finally:
        _repair(fleet, watching.next_number())


def _repair(fleet: Fleet, number: int) -> None:
    """Repair by command, then compare again: what the last whole comparison found is what doctor says."""
    for name, options in (("repair", ("--repair", "--yes")), ("compare", ())):
        done = fleet.run_module(f"{name}-{number}", "billing.cli.main", "reconcile", "--no-stripe", *options)
        assert done.wait(120) == 0, done.last_lines()


def findings(watching: Watched) -> list[dict[str, Any]]:
    """Return what `billing doctor` says, as a program reads it."""
    asked = watching.fleet.run_module(f"doctor-{watching.next_number()}", "billing.cli.main", "doctor", "--json")
    assert asked.wait(120) in (0, 1), asked.last_lines()
    said = asked.log.read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(said[said.index("[") :])
    return found


FAULTS: Final[dict[str, Fault]] = {
    "Redis stopped": Fault(
        lasts=lambda _, stack: hanging(stack.valkey.child.child_pid),
        part="Redis",
        says="does not answer",
        metric='max(billing_server_up{server="Redis"}) == 0',
        alerts=("BillingRedisDown", "BillingDoctorFails"),
    ),
    "PostgreSQL stopped": Fault(
        lasts=lambda _, stack: hanging(stack.postgres.child.child_pid),
        part="PostgreSQL",
        says="",
        metric='max(billing_server_up{server="PostgreSQL"}) == 0',
        alerts=("BillingPostgreSQLDown",),
    ),
    "consumer stopped": Fault(
        lasts=consumer_stopped,
        part="liveness",
        says="no consumer is seen",
        metric="max by (queue) (billing_queue_consumers) == 0",
        alerts=("BillingQueueUnread", "BillingConsumerSilent", "BillingTargetDown"),
    ),
    "RabbitMQ blocked": Fault(
        lasts=rabbitmq_blocked,
        part="broker",
        says="takes no messages",
        metric="min(billing_outbox_oldest_seconds) > 15",
        alerts=("BillingOutboxOld", "BillingDoctorFails"),
    ),
    "Stripe down": Fault(
        lasts=lambda _, stack: hanging(stack.stripe_sandbox.child.child_pid),
        part="Stripe",
        says="",
        metric='max(billing_server_up{server="Stripe"}) == 0',
        alerts=("BillingStripeDown",),
    ),
    "a credit of drift": Fault(
        lasts=drifted,
        part="laws",
        says="L2 bucket",
        metric='max(billing_law_violations{law="L2 bucket"}) > 0',
        alerts=("BillingLawViolated",),
    ),
}
