"""Consumers in processes of their own, and whoever kills one of them, RabbitMQ or PostgreSQL during deliveries.

Two consumers have half of the queues each; a standby has all, and takes over what is free.
"""

from __future__ import annotations

import collections
import queue
import threading
from collections.abc import Sequence
from typing import Any, Final, Self

from billing.core.settings import Settings
from billing.embedded.stack import Stack
from billing.integration.services import make_consumer
from billing.task.runtime import Runtime
from tests.chaos.crashing import context, die_with_the_test
from tests.hanging import kill_node

QUEUES: Final = 4
#: The queues of each consumer.
CONSUMERS: Final = {"consumer-0": (0, 1), "consumer-1": (2, 3), "standby": tuple(range(QUEUES))}
#: Far above what a server needs on a busy machine.
RESTART_SECONDS: Final = 300.0
VICTIMS: Final = (*CONSUMERS, "rabbitmq", "postgres")


class Restarts:
    """Kills what it is told to, by SIGKILL, one after the other, and starts it again. Use it in a `with` block."""

    def __init__(self, settings: Settings, stack: Stack) -> None:
        self._settings, self._stack = settings, stack
        self._consumers: dict[str, Any] = {}
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._error: BaseException | None = None
        self.killed: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> Self:
        """Start the consumers."""
        for name in CONSUMERS:
            self._start(name)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self._orders.put(None)
        self._thread.join()
        for consumer in self._consumers.values():
            _end(consumer)

    def order(self, victim: str) -> None:
        """Have somebody killed soon, and started again."""
        self._orders.put(victim)

    def finish(self) -> None:
        """Wait until everybody who was to be killed was, and runs again."""
        self._orders.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def pids(self) -> Sequence[int]:
        """The consumers' process ids."""
        return [consumer.pid for consumer in self._consumers.values()]

    def _work(self) -> None:
        try:
            while (victim := self._orders.get()) is not None:
                self._kill(victim)
                self.killed[victim] += 1
        except BaseException as error:  # noqa: BLE001 - it is the test's to judge
            self._error = error

    def _kill(self, victim: str) -> None:
        if victim in CONSUMERS:
            _end(self._consumers[victim])
            self._start(victim)
            return
        kill_and_restart(self._stack, victim)

    def _start(self, name: str) -> None:
        consumer = context().Process(target=_consume, args=(self._settings, CONSUMERS[name]), daemon=True)
        consumer.start()
        self._consumers[name] = consumer


def kill_and_restart(stack: Stack, name: str) -> None:
    """SIGKILL `rabbitmq` or `postgres`, and start it again."""
    if name == "postgres":
        stack.postgres.kill()
        stack.postgres.restart(timeout_seconds=RESTART_SECONDS)
        return
    assert stack.rabbitmq is not None
    kill_node(stack.rabbitmq)
    stack.rabbitmq.restart(timeout_seconds=RESTART_SECONDS)


def _consume(settings: Settings, queues: Sequence[int]) -> None:
    die_with_the_test()
    make_consumer(Runtime(lambda: settings), queues).run()


def _end(consumer: Any) -> None:
    assert consumer.is_alive(), "a consumer ended by itself"
    consumer.kill()
    consumer.join()
    consumer.close()
