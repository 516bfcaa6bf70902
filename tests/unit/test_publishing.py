"""Events that no broker has confirmed are kept, within bounds, and published again in their order (L3, L9)."""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.clock import SystemClock
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished
from billing.events.usage_event import EventHead, UsageLine
from billing.task import publishing
from billing.task.pending import Pending
from billing.task.publishing import BYTES_MAX, EVENTS_MAX, SLICE, Events

RABBITMQ = "amqp://guest:guest@127.0.0.1:1//"


class Broker:
    """A broker that confirms as many messages as it is told, and then none until it is told again."""

    def __init__(self) -> None:
        self.confirms = 0
        self.bodies: list[bytes] = []
        self.silent: set[int] = set()
        self.tried: list[int] = []

    def publish(self, queue: int, body: bytes, *, shard: int, entry_id: str | None) -> None:
        """Confirm one event, or not."""
        self.publish_batch(queue, [Outgoing(body=body, shard=shard, entry_id=entry_id)])

    def publish_batch(self, queue: int, messages: Sequence[Outgoing]) -> None:
        """Confirm the first events of some."""
        self.tried.append(queue)
        taken = list(messages)[: 0 if queue in self.silent else self.confirms]
        self.confirms -= len(taken)
        self.bodies += [message.body for message in taken]
        if len(taken) < len(messages):
            raise PartlyPublished("the broker does not answer", confirmed=len(taken))


@pytest.fixture
def broker() -> Broker:
    """Return a broker that is away."""
    return Broker()


@pytest.fixture
def pending(monkeypatch: pytest.MonkeyPatch) -> Pending:
    """Return debts that are paid only when the test says so."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    return Pending(lambda entries: entries, lambda _: "")


@pytest.fixture
def events(broker: Broker, pending: Pending) -> Events:
    """Return the events of a process."""
    runtime: Any = SimpleNamespace(
        settings=Settings(broker_url=RABBITMQ), clock=SystemClock(), publisher=broker, observer=None
    )
    return Events(runtime, pending)


def test_an_event_that_is_confirmed_is_not_kept(events: Events, broker: Broker, pending: Pending) -> None:
    """Given a broker that answers, then an event costs one publish, and its outbox entry is removed."""
    broker.confirms = 9
    events.publish("acme", b"one", "1-0")
    pending.pay()
    assert (broker.bodies, len(events)) == ([b"one"], 0)
    assert [entry for _, entry in pending.take_confirmed()] == ["1-0"]


def test_events_that_were_not_confirmed_are_published_again_in_their_order(
    events: Events, broker: Broker, pending: Pending
) -> None:
    """Given a broker that was away, when debts are paid, then it gets what it has not confirmed, each until it has."""
    for number in range(5):
        events.publish("acme", b"%d" % number, f"{number}-0")
    assert len(events) == 5

    broker.confirms = 2
    pending.pay()
    assert (broker.bodies, len(events)) == ([b"0", b"1"], 3)
    broker.confirms = 99
    pending.pay()
    pending.pay()

    assert (broker.bodies, len(events)) == ([b"0", b"1", b"2", b"3", b"4"], 0)
    assert sorted(entry for _, entry in pending.take_confirmed()) == [f"{number}-0" for number in range(5)]


def test_a_time_limit_that_comes_upon_a_publish_loses_no_event(
    events: Events, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a publish that is interrupted, then the event is kept, and the interruption goes on."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(broker, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        events.publish("acme", b"one", "1-0")
    monkeypatch.undo()
    broker.confirms = 1
    events.publish_again()
    assert broker.bodies == [b"one"]


@pytest.mark.parametrize("bound", ["count", "bytes"])
def test_l9_past_its_bounds_it_keeps_the_newest_and_says_so_once(
    events: Events, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bound: str
) -> None:
    """Given more than may be kept, then the oldest is left to the relay, one line says that, and one more later."""
    monkeypatch.setattr(publishing, "EVENTS_MAX", 3 if bound == "count" else EVENTS_MAX)
    monkeypatch.setattr(publishing, "BYTES_MAX", 3 if bound == "bytes" else BYTES_MAX)
    with caplog.at_level(logging.ERROR):
        for number in range(6):
            events.publish("acme", b"%d" % number, f"{number}-0")
    assert len(events) == 3
    (line,) = errors(caplog)
    assert line == (
        "billing: 3 events wait for the broker in this process, as many as it keeps; older ones wait in Redis' outbox "
        "alone, for the relay"
    )

    broker.confirms = 99
    events.publish_again()
    assert broker.bodies == [b"3", b"4", b"5"]
    broker.confirms = 0
    for number in range(6):
        events.publish("acme", b"%d" % number, f"{number}-0")
    assert len(errors(caplog)) == 2


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_l9_as_many_as_it_keeps_go_out_in_one_turn_when_the_broker_is_back(events: Events, broker: Broker) -> None:
    """Given a full buffer, when the broker is back, then all of it is published, in slices."""
    for number in range(EVENTS_MAX):
        events.publish("acme", b"%d" % number, f"{number}-0")
    broker.confirms = EVENTS_MAX
    events.publish_again()
    assert broker.bodies == [b"%d" % number for number in range(EVENTS_MAX)]
    assert EVENTS_MAX % SLICE == 0


def client_of(queue: int) -> str:
    """Return a client whose events go to a queue."""
    settings = Settings()
    names = (f"client-{number}" for number in itertools.count())
    return next(name for name in names if queue_of(shard_of(name, settings.shards), settings.usage_queues) == queue)


def test_l10_a_queue_that_takes_nothing_keeps_back_no_other_queues_events(events: Events, broker: Broker) -> None:
    """Given a full slice of events for a queue that takes nothing, and younger ones of others, then those go out."""
    for number in range(SLICE + 1):
        events.publish(client_of(0), b"%d" % number, f"{number}-0")
    events.publish(client_of(1), b"one", "1-1")
    events.publish(client_of(2), b"two", "1-2")
    broker.silent, broker.confirms = {0}, 9_999
    events.publish_again()
    assert (sorted(broker.bodies), len(events)) == ([b"one", b"two"], SLICE + 1)

    broker.silent, broker.bodies = set(), []
    events.publish_again()
    assert (broker.bodies, len(events)) == ([b"%d" % number for number in range(SLICE + 1)], 0)


def test_l10_queues_that_took_nothing_are_tried_last_and_few_of_them_in_one_turn(
    events: Events, broker: Broker
) -> None:
    """Given all queues but one silent, then a turn waits for two at most, and the healthy one has its turn in two."""
    for queue in range(4):
        events.publish(client_of(queue), b"%d" % queue, f"1-{queue}")
    broker.silent, broker.confirms, broker.tried = {0, 1, 2}, 9_999, []
    events.publish_again()
    assert broker.tried == [0, 1]
    events.publish_again()
    assert broker.tried == [0, 1, 2, 3, 0]
    assert (broker.bodies, len(events)) == ([b"3"], 3)
    events.publish(client_of(3), b"late", "2-3")
    assert broker.bodies == [b"3", b"late"]


def test_without_confirms_the_outbox_entry_stays(broker: Broker, pending: Pending) -> None:
    """Given a transport that confirms nothing, when a kept event is out, then its entry is left to the consumer."""
    runtime: Any = SimpleNamespace(
        settings=Settings(broker_url="redis://127.0.0.1:1/0"), publisher=broker, observer=None
    )
    events = Events(runtime, pending)
    events.publish("acme", b"one", "1-0")
    broker.confirms = 1
    events.publish_again()
    assert (broker.bodies, len(events), pending.take_confirmed()) == ([b"one"], 0, [])


def test_a_direct_event_is_the_same_on_every_try(events: Events, broker: Broker) -> None:
    """Given a broker that did not confirm a direct event, when it is published again, then with the same bytes."""
    head = EventHead(
        run_id=uuid.UUID(int=1),
        client_id="acme",
        correlation_id="task",
        root_id="task",
        task="t",
        attempt=1,
        submitted_at=None,
        price_version=1,
    )
    identity = SimpleNamespace(client_id="acme")
    run: Any = SimpleNamespace(direct=None, head=head, settlement_id="s", identity=identity, mode=None)
    lines = [UsageLine(sku="page", quantity=1, credits=5)]
    with pytest.raises(PartlyPublished):
        events.publish_direct(run, lines)
    first = run.direct
    events._runtime.clock = SimpleNamespace(now=lambda: datetime(2100, 1, 1, tzinfo=UTC))
    broker.confirms = 1
    events.publish_direct(run, lines)
    assert broker.bodies == [first]
    assert len(events) == 0


def test_l3_past_the_bound_an_event_that_is_in_no_outbox_is_logged_whole(
    events: Events, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given more than may be kept, then what nobody else has can be read in the log; the outbox's are told once."""
    monkeypatch.setattr(publishing, "EVENTS_MAX", 2)
    events.publish("acme", b"alone", None)
    for number in range(3):
        events.publish("acme", b"settled", f"{number}-0")
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line for line in told if "in no outbox" in line and "alone" in line] == [told[0]]
    assert len(told) == 2
