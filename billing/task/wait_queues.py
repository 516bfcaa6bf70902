"""Where deliveries wait on RabbitMQ: a durable queue for each queue of tasks (or exchange) and length of the wait.

Guarantee: when `publish` returns, a queue has the message, replicated and on disk. Its wait over, RabbitMQ gives
it to the exchange that it came from, under its own routing key, and forgets it only once a queue there has taken it.
Each step is bounded in time, and after any failure the connection is thrown away.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

import celery

from billing.connections import task_broker
from billing.core.clock import Clock, SystemClock
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events.confirms import Unconfirmed, Unroutable
from billing.events.task_link import Refused, TaskLink
from billing.events.task_message import TaskMessage
from billing.events.topology import DELIVERY_LIMIT
from billing.task.waits import queue_name

logger = logging.getLogger(__name__)

#: After a failure nothing is tried for this long (L9): no queue, or where the broker refuses one, that one alone (L10).
PAUSE_SECONDS: Final = 1.0
_ALL: Final = ""


class WaitQueues:
    """What publishes to the wait queues, one per process. Threads may share it; make it after a fork."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._link: TaskLink | None = None
        #: The wait queues that this link has declared.
        self._declared: set[str] = set()
        #: By the name of a queue, until when it is not tried, and why.
        self._pauses: dict[str, tuple[float, str]] = {}

    def publish(self, app: celery.Celery, message: TaskMessage, milliseconds: int) -> None:
        """Have a message wait for so long on the app's broker, or raise `Unreachable` when that is not confirmed."""
        seconds = self._settings.publish_timeout_seconds
        if not self._lock.acquire(timeout=seconds):
            raise Unreachable(f"another delivery of this process has been put off for {seconds:g} s")
        try:
            name = queue_name(message.exchange, message.routing_key, milliseconds)
            now = self._clock.monotonic()
            self._pauses = {paused: pause for paused, pause in self._pauses.items() if now < pause[0]}
            for paused in (_ALL, name):
                if paused in self._pauses:
                    raise Unreachable(self._pauses[paused][1])
            try:
                self._publish(app, message, milliseconds)
            except Unreachable as error:
                paused = name if isinstance(error, Refused | Unroutable) else _ALL
                self._pauses[paused] = (self._clock.monotonic() + PAUSE_SECONDS, str(error))
                raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Drop the connection; the next publish makes another."""
        with self._lock:
            self._throw_away()

    def _publish(self, app: celery.Celery, message: TaskMessage, milliseconds: int) -> None:
        reused = self._link is not None
        try:
            self._try(app, message, milliseconds)
        except Unreachable as error:
            # A queue that was deleted is declared anew, over a new connection as after any error; and a connection
            # that broke while it was idle says so at once. What was not confirmed in time may be in a queue.
            if not reused or (isinstance(error, Unconfirmed) and not isinstance(error, Unroutable)):
                raise
            self._try(app, message, milliseconds)

    def _try(self, app: celery.Celery, message: TaskMessage, milliseconds: int) -> None:
        try:
            if self._link is None or self._link.url != task_broker.url_of(app):
                self._throw_away()
                self._link = TaskLink(app, self._settings)
                self._link.open()
            self._publish_over(self._link, message, milliseconds)
        except BaseException:
            # Also where a soft time limit came upon this: confirms are unread, so the channel must not be used message.
            self._throw_away()
            raise

    def _throw_away(self) -> None:
        link, self._link, self._declared = self._link, None, set()
        if link is not None:
            link.throw_away()

    def _publish_over(self, link: TaskLink, message: TaskMessage, milliseconds: int) -> None:
        name = queue_name(message.exchange, message.routing_key, milliseconds)
        try:
            if name not in self._declared:
                link.declare(lambda channel: _declare(channel, name, message.exchange, milliseconds))
                self._declared.add(name)
            link.publish(message, exchange=name)
        except Refused as error:
            reason = f"queue {name!r} is refused ({error})"
            raise Refused(reason) from error


def _declare(channel: Any, name: str, exchange: str, milliseconds: int) -> None:
    """Declare an exchange that takes every routing key, and its queue; what is there is left as it is.

    The routing key stays the message's own, by which RabbitMQ hands it back. All three are durable and replicated:
    RabbitMQ 4 knows no others. The delivery limit is written out: its own would drop deliveries.
    """
    channel.exchange_declare(name, "fanout", durable=True, auto_delete=False)
    channel.queue_declare(
        name,
        durable=True,
        auto_delete=False,
        arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": milliseconds,
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
        },
    )
    channel.queue_bind(name, name, "")
