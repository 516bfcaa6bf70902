"""What Flower keeps of the fleet's tasks: `celery.events.state.State`, fed by an event receiver on the real broker."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Any, Final, Self

import celery
from celery.events.state import State

from billing.observability.flower.tasks import BilledTask

_POLL_SECONDS: Final = 0.2
_LIMIT_SECONDS: Final = 120.0
#: What is said of a task of which no event has come.
UNSEEN: Final = "not listed"


class BilledState(State):
    """Celery's state with the record of a task that Flower has under this library."""

    Task = BilledTask


class Monitor:
    """Listens to the events of the fleet, from before its workers start."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._state = BilledState()
        self._listens, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)

    def state_of(self, task_id: str) -> str:
        """Return the state that is shown of a task."""
        tasks: Any = self._state.tasks  # type: ignore[attr-defined]  # the stubs lack it
        task = tasks.get(task_id)
        return UNSEEN if task is None else str(task.state)

    def __enter__(self) -> Self:
        """Start, and return once events are received."""
        self._thread.start()
        assert self._listens.wait(_LIMIT_SECONDS), "the monitor does not reach the broker"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join(_LIMIT_SECONDS)

    def _listen(self) -> None:
        app = celery.Celery("monitor", broker=self._broker_url, set_as_current=False)
        # What a monitor has not read for five seconds is dropped by default.
        app.conf.update(event_queue_ttl=600.0, event_queue_expires=1_200.0)
        with app.connection_for_read() as connection:
            receiver: Any = app.events.Receiver(connection, handlers={"*": self._state.event})
            with receiver.consumer_context(wakeup=True) as (consuming, _, _):
                self._listens.set()
                while not self._ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        consuming.drain_events(timeout=_POLL_SECONDS)
        app.close()
