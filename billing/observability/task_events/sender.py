"""Sends task events from the process that ran the task, by a thread and a connection of its own, made at first use.

Whoever calls `send` never waits and never fails: a bounded queue takes the event, the oldest gives way when it is
full, and what the broker does not take is dropped (L9). A blocked broker stops this thread and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Final

import celery
import kombu
from celery.events.dispatcher import EventDispatcher

logger = logging.getLogger(__name__)

#: Events that wait at most in one process (L9); about half a kilobyte each.
WAITING_MAX: Final = 2_000
#: Events of one message; Celery's receivers take lists.
BATCH_MAX: Final = 500
#: What comes within this time of the first event goes in one message with it.
GATHER_SECONDS: Final = 0.2
#: Until the broker is tried again after it did not take a batch.
PAUSE_SECONDS: Final = 5.0
#: How long one read or write of the thread may take.
SOCKET_SECONDS: Final = 5.0


class EventSender:
    """The sender of one process of one worker."""

    def __init__(self, app: celery.Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=WAITING_MAX)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._connection: kombu.Connection | None = None
        self._dispatcher: EventDispatcher | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(self, type_: str, fields: dict[str, Any]) -> None:
        """Have an event sent, with the time of now."""
        self._waiting.append((type_, fields | {"timestamp": time.time()}))
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Send what waits if the broker takes it in time; the thread ends with its process in any case."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="billing-task-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not (self._closing.is_set() and not self._waiting):
            self._wake.wait()
            self._closing.wait(GATHER_SECONDS)
            self._wake.clear()
            try:
                while self._waiting:
                    self._publish([self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))])
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach a task
                logger.debug("billing: task events are dropped: %s: %s", type(error).__name__, error)
                self._disconnect()
                self._closing.wait(PAUSE_SECONDS)
        self._disconnect()

    def _publish(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        if self._dispatcher is None:
            self._dispatcher = self._connect()
        for type_, fields in events:
            self._dispatcher.send(type_, **fields)
        self._dispatcher.flush(errors=False)

    def _connect(self) -> EventDispatcher:
        """Connect to where the app's other task events go; try each of its servers once."""
        # The connection is known first, so that it is closed whatever happens next.
        connection = self._connection = self._app.connection_for_write(
            connect_timeout=SOCKET_SECONDS,
            heartbeat=0,  # nobody would answer: the thread sleeps while there is nothing to send
        )
        amqp = connection.transport.driver_type == "amqp"
        if amqp:
            bounds: dict[str, Any] = {"read_timeout": SOCKET_SECONDS, "write_timeout": SOCKET_SECONDS}
            # An event is worth no wait for an answer.
            connection.transport_options = {**(connection.transport_options or {}), **bounds, "confirm_publish": False}
        connection.ensure_connection(max_retries=len(connection.alt), interval_start=0, interval_step=0)
        if amqp:
            raw = connection.connection
            # py-amqp would poll the socket before each publish, and can spin there on half a frame.
            raw.client_properties.get("capabilities", {}).pop("connection.blocked", None)
        return EventDispatcher(
            connection,
            app=self._app,
            hostname=self._hostname,
            buffer_while_offline=False,
            buffer_group=["task"],
            buffer_limit=BATCH_MAX + 1,
        )

    def _disconnect(self) -> None:
        connection, self._connection, self._dispatcher = self._connection, None, None
        if connection is not None:
            try:
                # Without a word to the server, which may not be listening.
                connection.collect()
            except Exception:
                logger.debug("billing: closing the connection of task events failed", exc_info=True)
