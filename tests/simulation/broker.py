"""The broker: task messages until they are acked, usage queues with publisher confirms, all of it durable.

What is not acked comes again. A usage queue has one consumer at a time and keeps its order; what was given back
stands first.
"""

from __future__ import annotations

import collections
import functools
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from billing.core.errors import Unreachable
from billing.events.links import Outgoing
from billing.events.publisher import PartlyPublished
from billing.task.headers import identify
from tests.simulation.faults import Killed

#: The one task that there is.
TASK = "simulated"


def is_marker(body: bytes) -> bool:
    """Whether a message is a rebuild's marker, which nothing overtakes."""
    return "run_id" not in json.loads(body)


@dataclass(kw_only=True, eq=False)
class Message:
    """One delivery's message of a task. `outcomes` is what its body does, attempt by attempt: it is deterministic."""

    task_id: str
    client_id: str
    sku: str
    quantity: int
    recorded: int | None
    outcomes: tuple[str, ...]
    headers: dict[str, Any]
    retries: int = 0
    not_before_ms: int = 0
    root_id: str | None = None
    replaced_task_nesting: int = 0

    @property
    def id(self) -> str:
        """The task's id, as Celery's request has it."""
        return self.task_id

    @functools.cached_property
    def run_id(self) -> uuid.UUID:
        """The run that it is a delivery of."""
        return identify(self, self.client_id, TASK).run_id


@dataclass(kw_only=True)
class Broker:
    """All queues."""

    usage_queues: int
    tasks: list[Message] = field(default_factory=list)
    usage: list[collections.deque[bytes]] = field(default_factory=list)
    up: bool = True

    def __post_init__(self) -> None:
        self.usage = [collections.deque() for _ in range(self.usage_queues)]

    def is_up(self) -> bool:
        """Whether it answers."""
        return self.up

    def send(self, message: Message) -> None:
        """Take a task's message."""
        self.tasks.append(message)

    def publish(self, queue: int, body: bytes, *, shard: int, entry_id: str | None) -> None:
        """Take a usage event; when it returns, the queue has it."""
        self.usage[queue].append(body)

    def publish_batch(self, queue: int, messages: Sequence[Outgoing]) -> None:
        """Take several."""
        self.usage[queue].extend(message.body for message in messages)

    def close(self) -> None:
        """End a publisher; the queues stay."""

    @property
    def empty(self) -> bool:
        """Whether no usage event is on its way."""
        return not any(self.usage)


class Publishing:
    """A publisher over a wire: what it says of a batch that failed halfway is what `Publisher` says."""

    def __init__(self, wire: Any, failed: Callable[[int, bytes], None] = lambda *_: None) -> None:
        """`failed` is told of each event that was not confirmed, its process may have died in the attempt."""
        self._wire, self._failed = wire, failed

    def publish(self, queue: int, body: bytes, *, shard: int, entry_id: str | None) -> None:
        """Publish one event; raises `Unreachable`, and then it may have arrived."""
        try:
            self._wire.publish(queue, body, shard=shard, entry_id=entry_id)
        except (Unreachable, Killed):
            self._failed(queue, body)
            raise

    def publish_batch(self, queue: int, messages: Sequence[Outgoing]) -> None:
        """Publish in order; raises `PartlyPublished` with how many are confirmed."""
        for confirmed, message in enumerate(messages):
            try:
                self.publish(queue, message.body, shard=message.shard, entry_id=message.entry_id)
            except Unreachable as error:
                raise PartlyPublished(str(error), confirmed=confirmed) from error

    def close(self) -> None:
        """Nothing is kept open."""
