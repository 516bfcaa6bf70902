"""Publishes usage events: confirmed, mandatory, bounded in time, one connection per process, safe among threads.

Guarantee on RabbitMQ: when `publish` returns, a queue has the event. A broker that is away or blocked costs a caller
`billing_publish_timeout_seconds` once (one that hangs: a second time, for connecting), and then nothing for a while; a
queue that takes nothing is given that time alone (L10). Events wait in the outbox meanwhile, for the relay. After any
failure the connection is thrown away without a farewell, which could block too. kombu's Redis transport has no
confirms: there the outbox entry stays until the consumer has committed the row.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from billing.core.clock import Clock, SystemClock
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.events.confirms import Blocked, Unconfirmed, Unroutable
from billing.events.links import Link, Outgoing, link_to

logger = logging.getLogger(__name__)

#: After a failure nothing is tried for this long; it doubles from failure to failure up to the maximum (L9).
PAUSE_SECONDS: Final = 1.0
PAUSE_SECONDS_MAX: Final = 15.0
#: Messages that wait for their confirms together; all of these confirms fit into the socket's buffers.
WINDOW: Final = 500


class PartlyPublished(Unreachable):
    """Only the first `confirmed` messages of a publish are known to be in a queue."""

    def __init__(self, message: str, *, confirmed: int = 0) -> None:
        super().__init__(message)
        self.confirmed = confirmed


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pause:
    failures: int
    until: float
    reason: str


class Publisher:
    """The publisher of one process. Make it after a fork, not before."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._link: Link | None = None
        #: By queue what is not tried for a while; None stands for the whole broker.
        self._pauses: dict[int | None, _Pause] = {}

    def publish(self, queue_number: int, body: bytes, *, shard: int, entry_id: str | None) -> None:
        """Publish one event, or raise `Unreachable` when it was not confirmed within the bound."""
        self.publish_batch(queue_number, [Outgoing(body=body, shard=shard, entry_id=entry_id)])

    def publish_batch(self, queue_number: int, messages: Sequence[Outgoing]) -> None:
        """Publish events in order, waiting for confirms together. Raises `PartlyPublished`, an `Unreachable`."""
        done = 0
        with self._turn(queue_number):
            while done < len(messages):
                window = messages[done : done + WINDOW]
                confirmed, error = self._publish_window(queue_number, window)
                done += confirmed
                if error is not None:
                    raise PartlyPublished(str(error), confirmed=done) from error

    def close(self) -> None:
        """Drop the connection; the next publish makes another."""
        with self._lock:
            self._throw_away()

    @contextmanager
    def _turn(self, queue_number: int) -> Iterator[None]:
        """Wait for this thread's turn, bounded, and refuse while broker or queue is given time to come back."""
        seconds = self._settings.publish_timeout_seconds
        self._check_pauses(queue_number)
        if not self._lock.acquire(timeout=seconds):
            message = f"another publish of this process has been waiting for {seconds:g} s"
            raise PartlyPublished(message)
        try:
            self._check_pauses(queue_number)
            yield
        finally:
            self._lock.release()

    def _check_pauses(self, queue_number: int) -> None:
        now = self._clock.monotonic()
        for whose in (None, queue_number):
            pause = self._pauses.get(whose)
            if pause is not None and now < pause.until:
                raise PartlyPublished(pause.reason)

    def _publish_window(self, queue_number: int, window: Sequence[Outgoing]) -> tuple[int, Unreachable | None]:
        """Return how many of the window are confirmed, and what went wrong with the rest."""
        reused = self._link is not None
        confirmed, error = self._try(queue_number, window)
        if error is not None and reused and not isinstance(error, Unconfirmed):
            # A connection that broke while it was idle (RabbitMQ was restarted) says so at once: worth one new one.
            more, error = self._try(queue_number, window[confirmed:])
            confirmed += more
        if error is None:
            self._pauses.pop(None, None)
            self._pauses.pop(queue_number, None)
        elif not isinstance(error, Unroutable):
            # Without a confirm it may be the queue alone: a broker that hangs does not open the next connection either.
            alone = isinstance(error, Unconfirmed) and not isinstance(error, Blocked)
            self._pause(queue_number if alone else None, error)
        return confirmed, error

    def _try(self, queue_number: int, window: Sequence[Outgoing]) -> tuple[int, Unreachable | None]:
        link = self._link
        try:
            if link is None:
                link = self._link = link_to(self._settings)
                link.open()
            link.publish(queue_number, window)
        except Unreachable as error:
            confirmed = 0 if link is None else link.confirmed
            self._throw_away()
            return confirmed, error
        except BaseException:
            # An interruption (a soft time limit, Ctrl-C) leaves confirms unread: this channel must not be used again.
            self._throw_away()
            raise
        return len(window), None

    def _pause(self, whose: int | None, error: Unreachable) -> None:
        before = self._pauses.get(whose)
        failures = 1 if before is None else before.failures + 1
        seconds = min(PAUSE_SECONDS * 2 ** (failures - 1), PAUSE_SECONDS_MAX)
        self._pauses[whose] = _Pause(failures=failures, until=self._clock.monotonic() + seconds, reason=str(error))
        what = "the broker" if whose is None else f"usage queue {whose}"
        logger.warning("billing: usage events wait in the outbox; %s is tried again in %g s: %s", what, seconds, error)

    def _throw_away(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.throw_away()
